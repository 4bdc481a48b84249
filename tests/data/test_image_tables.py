"""Tables of attributes and captions beside images: metadata.csv and .jsonl, CelebA's, and UTKFace's file names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limner.core.condition import Attributes
from limner.core.errors import LimnerError
from limner.data import Files, Pixels, check, load, prepare
from limner.data.files import index, layout_cache
from limner.data.files.image_tables import read
from limner.data.files.store import open_store

N = 12
HAIR, GLASSES = ["red", "grey"], ["none", "round", "square"]


def cells(i: int) -> dict[str, str]:
    return {"hair": HAIR[i % 2], "glasses": GLASSES[i % 3]}


def csv_of(rows: Sequence[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return "\n".join([",".join(keys), *(",".join(str(row.get(key, "")) for key in keys) for row in rows)]) + "\n"


@pytest.fixture
def photos(folder_of) -> Path:
    """Twelve pictures with a table."""
    root: Path = folder_of(*(f"{i:02}.png" for i in range(N)))
    write(root, [{"file_name": f"{i:02}.png", **cells(i)} for i in range(N)])
    return root


def write(root: Path, rows: Sequence[dict[str, Any]], name: str = "metadata.csv") -> None:
    text = csv_of(rows) if name.endswith("csv") else "".join(json.dumps(row) + "\n" for row in rows)
    (root / name).write_text(text, encoding="utf-8")


def said(dataset: Any) -> dict[str, str]:
    """What a set says of each image."""
    assert isinstance(dataset.condition, Attributes)
    return dict(zip(dataset.paths, dataset.condition.name(dataset.labels)))


def all_of(root: Path, **options: Any) -> Any:
    return load(root, split="all", **options)


@pytest.mark.parametrize("cache", [True, False])
def test_a_csv_gives_each_image_its_attributes(photos: Path, cache: bool):
    dataset = all_of(photos, cache=cache)
    assert isinstance(dataset, Pixels if cache else Files)
    assert dataset.condition.values == {"hair": ["grey", "red"], "glasses": GLASSES}
    assert said(dataset) == {f"{i:02}.png": f"hair={HAIR[i % 2]} glasses={GLASSES[i % 3]}" for i in range(N)}
    assert dataset.classes is dataset.texts is None
    assert dataset.notes[0] == (
        "found 12 images with 2 attributes from metadata.csv: hair (grey 6, red 6), glasses (none 4, round 4, square 4)"
    )
    train, test = load(photos, cache=cache), load(photos, cache=cache, split="test")
    assert train.condition == test.condition == dataset.condition
    assert said(train) | said(test) == said(dataset)
    assert not said(train).keys() & said(test).keys()


def test_only_limit_and_binarise_work_as_with_classes(photos: Path):
    assert list(said(all_of(photos, only=["glasses=round", "glasses=none"], limit=2))) == ["00.png", "06.png"]
    dataset = all_of(photos, without=["glasses=square"], binarise="static", size=8)
    assert len(dataset) == 8
    assert dataset.condition.values["glasses"] == ["none", "round"]


def test_tables_of_split_folders_name_files_from_where_they_lie(folder_of, tmp_path: Path):
    root = folder_of(*(f"{split}/{i}.png" for split in ("train", "test") for i in range(4)))
    for split in ("train", "test"):
        rows = [{"file_name": f"{i}.png", "hair": HAIR[(i + (split == "test")) % 2], "text": split} for i in range(4)]
        write(root / split, rows, "metadata.jsonl")
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "photos")
    for place in (root, Path(packed)):
        train, test = load(place), load(place, split="test")
        assert [text.partition("=")[2] for text in said(train).values()] == ["red", "grey"] * 2
        assert [text.partition("=")[2] for text in said(test).values()] == ["grey", "red"] * 2
        assert list(map(list, train.texts)) == [["train"]] * 4
        assert not [note for note in train.notes if "ignored" in note]


def test_jsonl_has_several_captions_truth_values_numbers_and_nothing(folder_of):
    root = folder_of("0.png", "1.png", "2.png")
    rows = [
        {"file_name": "0.png", "text": ["a  cat", "an animal"], "sits": True, "legs": 4, "objects": {"box": [1]}},
        {"file_name": "./1.png", "text": "a bird", "sits": False, "legs": 2.0, "objects": {}},
        {"file_name": "2.png", "sits": None, "legs": 4},
    ]
    write(root, rows, "metadata.jsonl")
    dataset = all_of(root)
    assert dataset.texts == [["a cat", "an animal"], ["a bird"], []]
    assert dataset.condition.values == {"sits": ["no", "yes"], "legs": ["2", "4"]}
    assert list(said(dataset).values()) == ["sits=yes legs=4", "sits=no legs=2", "legs=4"]
    assert dataset.labels[2].tolist() == [0, 0, 0, 1]
    assert "3 captions of 2 images; none for 1 (such as 2.png)" in dataset.notes
    assert "a caption is empty in 1 row of metadata.jsonl (such as that of 2.png)" in dataset.notes
    assert "columns that are no attributes: objects holds lists or objects" in dataset.notes


@pytest.mark.parametrize("empty", ["", "null", "NaN", "NA", "n/a", " "])
def test_empty_cells_are_not_known(photos: Path, empty: str):
    write(photos, [{"file_name": f"{i:02}.png", **cells(i), **({"hair": empty} if i < 3 else {})} for i in range(N)])
    dataset = all_of(photos)
    assert said(dataset)["00.png"] == "glasses=none"
    assert dataset.labels[0].tolist() == [0, 0, 1, 0, 0]
    assert "hair (grey 5, red 4, not known 3)" in dataset.notes[0]


def test_what_is_wrong_with_rows_is_counted(photos: Path):
    rows = [{"file_name": f"{i:02}.png", **cells(i), "text": f"picture {i}"} for i in range(N - 2)]
    rows += [{"file_name": f"gone{i}.png", **cells(i), "text": "?"} for i in range(3)]
    rows += [{**cells(0), "text": "?"}, {"file_name": "01.png", **cells(1), "text": "again"}]
    rows += [{"file_name": "02.png", "hair": "grey", "glasses": "square", "text": ""}]
    write(photos, rows)
    dataset = all_of(photos)
    table = "metadata.csv"
    for fault in (
        f"the file is not there for 3 rows of {table} (such as gone0.png)",
        f"no file is named in 1 row of {table}: fill the column file_name",
        f"there is no row in {table} for 2 of 12 images (such as 10.png): nothing is known of them",
        f"there are several rows in {table} for 2 images (such as 01.png): their captions are joined; for 1 they"
        " contradict each other (hair), and that is taken as not known",
        f"a caption is empty in 1 row of {table} (such as that of 02.png)",
    ):
        assert fault in dataset.notes
    assert dataset.texts[1] == ["picture 1", "again"]
    assert dataset.texts[10] == []
    assert said(dataset)["02.png"] == "glasses=square"
    assert said(dataset)["10.png"] == ""
    assert len(dataset) == N  # no image is lost


@pytest.mark.parametrize("folder", ["/home/me/faces/", "C:\\me\\faces\\", "..\\faces\\"])
def test_paths_of_another_machine_are_found_by_the_names_of_their_files(photos: Path, folder: str):
    known = said(all_of(photos))
    write(photos, [{"file_name": f"{folder}{i:02}.png", **cells(i)} for i in range(N)])
    assert said(all_of(photos)) == known


def test_a_picture_that_cannot_be_read_is_not_called_missing(photos: Path):
    (photos / "03.png").write_bytes(b"no picture")
    dataset = all_of(photos)
    assert len(dataset) == N - 1
    assert not [note for note in dataset.notes if "not there" in note]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "metadata.jsonl",
            '{"file_name": "00.png"}\n[1]\n',
            "metadata.jsonl: line 2 is no JSON object; write one such",
        ),
        ("metadata.jsonl", '{"file_name": "00.png"', "metadata.jsonl: line 1 is no JSON object"),
        ("metadata.csv", "file_name,hair\n00.png,red,curly\n", "line 2 has 3 cells and the first line 2; put texts"),
        ("metadata.csv", 'file_name,hair\n00.png,"red\n', "line 2 cannot be read"),
        ("metadata.csv", "file_name,hair,hair\n", "metadata.csv has two columns 'hair'; rename one"),
        ("metadata.csv", "file_name,a b,a_b\n00.png,1,2\n", "the columns 'a b' and 'a_b' are alike; rename one"),
        (
            "metadata.csv",
            "file_name,hair\nx/00.jpg,red\n",
            "names none of the 12 images: 'x/00.jpg' is not one of them",
        ),
        ("metadata.csv", b"file_name,hair\n00.png,\xff\n", "metadata.csv is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_table_of_which_nothing_can_be_made_is_refused(photos: Path, name: str, content: str | bytes, message: str):
    (photos / "metadata.csv").unlink()
    (photos / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LimnerError, match=message):
        all_of(photos)


def test_two_tables_in_one_folder_are_asked_about(photos: Path):
    write(photos, [{"file_name": "00.png"}], "metadata.jsonl")
    with pytest.raises(
        LimnerError, match=r"metadata.jsonl lies beside metadata.csv, and one is needed; remove the other"
    ):
        all_of(photos)


def test_a_table_of_another_convention_is_not_used_and_named(photos: Path):
    write(photos, [{"id": i, "hair": "red"} for i in range(N)])
    dataset = all_of(photos)
    assert dataset.condition is None
    why = "metadata.csv is not used, since it has no column file_name (its columns: id, hair): add it"
    assert why in dataset.notes
    with pytest.raises(
        LimnerError, match=r"there is no table of attributes, such as metadata.csv .*has no column file_name"
    ):
        all_of(photos, attributes=["hair"])


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_excel_saves_with_a_mark_and_other_signs(photos: Path, sign: str):
    text = csv_of([{"file_name": f"{i:02}.png", **cells(i)} for i in range(N)]).replace(",", sign)
    (photos / "metadata.csv").write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert all_of(photos).condition.values == {"hair": ["grey", "red"], "glasses": GLASSES}


# --- which columns are attributes -------------------------------------------------------------------------


def columns(root: Path, **values: Sequence[object]) -> Path:
    write(root, [{"file_name": f"{i:02}.png"} | {name: of[i] for name, of in values.items()} for i in range(N)])
    return root


def test_few_whole_numbers_are_values_and_other_numbers_need_bins(photos: Path):
    ages = [3, 19, 20, 39, 40, 41, 60, 61, 70, 71, 72, 80]
    columns(photos, legs=[2, 4, 10] * 4, age=ages, height=[i / 8 for i in range(N)])
    dataset = all_of(photos)
    assert dataset.condition.values == {"legs": ["2", "4", "10"]}  # by their size, and not by their text
    (note,) = [note for note in dataset.notes if note.startswith("columns that are no attributes")]
    assert "age has 12 different numbers (data.bins={age: [39, 60, 71]} makes intervals of them)" in note
    assert "height has 12 different numbers" in note
    with pytest.raises(LimnerError, match=r"attributes: the column age of metadata.csv has 12 different numbers"):
        all_of(columns(photos, age=[i * 1.5 for i in range(N)]), attributes=["age"])


def test_a_border_belongs_to_the_interval_above_it(photos: Path):
    ages = [3, 19, 20, 39, 40, 41, 60, 61, 70, 71, 72, 80]
    dataset = all_of(columns(photos, age=ages, legs=[2, 4] * 6), bins={"age": [20, 40, 60]})
    assert dataset.condition.values == {"age": ["below-20", "20-39", "40-59", "60+"], "legs": ["2", "4"]}
    features = dataset.condition.features(dataset.labels)[:, 0]
    assert features.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3, 3, 3, 3]
    halves = all_of(columns(photos, age=[i / 4 for i in range(N)]), bins={"age": [0, 0.5, 1]})
    assert halves.condition.values == {"age": ["0-to-0.5", "0.5-to-1", "1+"]}  # an interval without an image is none
    assert halves.condition.features(halves.labels)[:, 0].tolist() == [0, 0, 1, 1, *[2] * 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": {"age": [40, 20]}}, r"bins: .*borders of age must ascend; write for example \{age: \[20, 40\]\}"),
        ({"bins": {"age": []}}, "borders of age must ascend"),
        ({"bins": {"hair": [1]}}, "bins: the column hair has 'red', which is no number"),
        ({"bins": {"tall": [1]}}, "bins: metadata.csv has no column 'tall'; choose from: hair, age, kind"),
        ({"attributes": ["tall"]}, "attributes: metadata.csv has no column 'tall'; choose from: hair, age, kind"),
        ({"attributes": ["kind"]}, "the column kind of metadata.csv has 'cat' for all images, and tells nothing"),
        ({"attributes": ["hair"], "bins": {"age": [20]}}, "bins: age is not among the chosen attributes"),
        ({"bins": {"age": [1000]}}, "the column age of metadata.csv has 'below-1000' for all images"),
    ],
)
def test_what_cannot_be_had_is_refused(photos: Path, options: dict[str, Any], message: str):
    columns(photos, hair=HAIR * 6, age=range(10, 10 + N), kind=["cat"] * N)
    with pytest.raises(LimnerError, match=message):
        all_of(photos, **options)


def test_attributes_chooses_columns_in_its_order(photos: Path):
    assert all_of(photos, attributes=["glasses"]).condition.values == {"glasses": GLASSES}
    assert list(all_of(photos, attributes=["glasses", "hair"]).condition.values) == ["glasses", "hair"]
    names = columns(photos, **{"Hair colour": HAIR * 6})
    assert all_of(names, attributes=["Hair colour"]).condition.values == {"Hair_colour": ["grey", "red"]}
    assert all_of(names).condition.read("Hair_colour=red", 1).tolist() == [[0, 1]]


def test_a_column_of_ten_thousand_texts_names_images_and_is_no_attribute():
    class Table:
        """A store of names alone."""

        def __init__(self) -> None:
            self.names = [f"{i}.png" for i in range(10_000)]
            self.quarantine: list[tuple[str, str]] = []
            self.tables = ["metadata.csv"]

        def table(self, path: str) -> bytes:
            rows = [f"{name},{'ab'[i % 2]},no {i}" for i, name in enumerate(self.names)]
            return "\n".join(["file_name,kind,caption", *rows]).encode()

    from limner.data.files.columns import Asked

    found = read(Table(), Table().names, Asked())
    assert found is not None
    assert found.attributes == {"kind": ["a", "b"]}
    assert found.notes == [
        "columns that are no attributes: caption has 10,000 different texts (name it text if they are captions; as an "
        "attribute it needs fewer)"
    ]
    with pytest.raises(LimnerError, match=r"the column caption of metadata.csv has 10,000 different texts"):
        read(Table(), Table().names, Asked(("caption",)))


# --- tables and class folders -----------------------------------------------------------------------------


def test_attributes_come_before_class_folders_and_captions_beside_them(folder_of):
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)]
    root = folder_of(*names, "alone.png")
    write(root, [{"file_name": name, "sits": "yes" if i % 2 else "no", "text": name} for i, name in enumerate(names)])
    dataset = all_of(root)
    assert dataset.condition.values == {"sits": ["no", "yes"]}
    assert len(dataset) == 9  # the one beside the class folders has attributes that are not known
    assert "attributes come before the 2 class folders: attributes=[] takes those instead" in dataset.notes
    classes = all_of(root, attributes=[])
    assert classes.classes == ["cat", "dog"]
    assert classes.texts == [[name] for name in names]
    assert "8 captions of 8 images; none for 1 (such as alone.png)" in classes.notes
    write(root, [{"file_name": name, "text": "an animal"} for name in names])
    assert all_of(root).classes == ["cat", "dog"]  # captions alone leave the classes as they are


def test_runs_of_before_go_on_without_tables(folder_of):
    names = [f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)]
    root = folder_of(*names)
    before = all_of(root).fingerprint
    write(root, [{"file_name": name, "sits": "yes" if i % 2 else "no"} for i, name in enumerate(names)])
    old = all_of(root, reading=2)
    assert old.classes == ["cat", "dog"]
    assert old.fingerprint == before
    assert "ignored 1 other files (.csv 1)" in old.notes
    with pytest.raises(LimnerError, match=r"photos is read without \(reading=2\); leave attributes and bins out"):
        all_of(root, reading=2, attributes=["sits"])


# --- CelebA and UTKFace -----------------------------------------------------------------------------------

CELEBA = ("5_o_Clock_Shadow", "Eyeglasses", "Male")
SIGNS = [(-1, 1, 1), (1, -1, 1), (-1, -1, -1), (-1, 1, -1)]


@pytest.mark.parametrize("kind", ["txt", "csv", "hq"])
def test_celebas_table_is_recognised_wherever_its_images_lie(folder_of, kind: str):
    files = [f"{i:06}.jpg" for i in range(1, 5)]
    root = folder_of(*(f"img_align_celeba/{file.replace('jpg', 'png')}" for file in files))
    for path in (root / "img_align_celeba").iterdir():
        path.rename(path.with_suffix(".jpg"))
    rows = [[file, *map(str, signs)] for file, signs in zip(files, SIGNS)]
    if kind == "csv":
        (root / "list_attr_celeba.csv").write_text(
            "\n".join([",".join(["image_id", *CELEBA]), *map(",".join, rows)]), encoding="utf-8"
        )
    else:
        text = "\n".join(
            ["4", " ".join(CELEBA) + " ", *(f"{row[0]} {' '.join(f'{s:>2}' for s in row[1:])}" for row in rows)]
        )
        name = "list_attr_celeba.txt" if kind == "txt" else "CelebAMask-HQ-attribute-anno.txt"
        (root / "Anno").mkdir()
        (root / "Anno" / name).write_text(text + "\n", encoding="utf-8")
    dataset = all_of(root)
    assert dataset.condition.values == {name.lower(): ["no", "yes"] for name in CELEBA}
    assert said(dataset)["img_align_celeba/000001.jpg"] == "5_o_clock_shadow=no eyeglasses=yes male=yes"
    features = dataset.condition.features(dataset.labels).numpy()
    np.testing.assert_array_equal(features, (np.array(SIGNS) + 1) // 2)
    assert all_of(root, only=["male=yes", "eyeglasses=yes"]).paths == ["img_align_celeba/000001.jpg"]


def test_a_line_of_celebas_table_that_is_wrong_is_named(folder_of):
    root = folder_of("000001.png", "000002.png")
    (root / "list_attr_celeba.txt").write_text("2\nMale Smiling\n000001.png -1 1\n000002.png 1\n", encoding="utf-8")
    with pytest.raises(LimnerError, match=r"list_attr_celeba.txt: line 4 is not a file name and 2 times 1 or -1"):
        all_of(root)


def test_utkfaces_names_say_age_in_decades_gender_and_race(folder_of):
    faces = {
        "21_0_1_20170109150557335.jpg.chip.png": "age=20-29 gender=male race=black",
        "0_1_4_20170110224232943.jpg.chip.png": "age=0-9 gender=female race=other",
        "29_1_2_20170116184028385.jpg.chip.png": "age=20-29 gender=female race=asian",
        "116_0_3_20170120134744096.jpg.chip.png": "age=90+ gender=male race=indian",
        "39_1_20170116174525125.jpg.chip.png": "age=30-39 gender=female",  # as some names of the set are
        "53__0_20170116184028386.jpg.chip.png": "age=50-59 race=white",
    }
    root = folder_of(*faces)
    dataset = all_of(root)
    assert said(dataset) == faces
    assert list(dataset.condition.values["age"]) == ["0-9", "20-29", "30-39", "50-59", "90+"]
    assert list(dataset.condition.values["gender"]) == ["female", "male"]
    two = all_of(root, bins={"age": [30]}, attributes=["age"])
    assert two.condition.values == {"age": ["below-30", "30+"]}
    assert all_of(folder_of("21_0_1_20170109150557335.png", "a.png", root="others")).condition is None


# --- stores and caches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize(
    "options",
    [{}, {"split": "test"}, {"only": ["glasses=round"]}, {"attributes": ["glasses"]}, {"attributes": [], "limit": 5}],
)
def test_a_prepared_store_gives_what_the_folder_gives(
    photos: Path, tmp_path: Path, options: dict[str, Any], cache: bool
):
    write(photos, [{"file_name": f"{i:02}.png", **cells(i), "text": f"no {i}"} for i in range(2, N)])
    prepare(photos, tmp_path / "x.limner", size=8)
    ours, theirs = load(tmp_path / "x.limner", cache=cache, **options), load(photos, size=8, cache=cache, **options)
    assert ours.paths == theirs.paths
    assert ours.condition == theirs.condition
    assert ours.labels is theirs.labels is None or torch.equal(ours.labels, theirs.labels)
    assert list(map(list, ours.texts)) == list(map(list, theirs.texts))
    assert ours.fingerprint == theirs.fingerprint


def test_a_store_of_classes_is_written_as_before_there_were_attributes(folder_of, tmp_path: Path):
    root = folder_of(*(f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(4)))
    prepare(root, tmp_path / "x.limner")
    header = json.loads((tmp_path / "x.limner/header.json").read_text(encoding="utf-8"))
    assert not {"attributes", "texts"} & header.keys()  # the fields of limner 0.1, so both read each other's
    assert np.load(tmp_path / "x.limner/labels.npy").shape == (8,)
    assert load(tmp_path / "x.limner").classes == ["cat", "dog"]
    with pytest.raises(LimnerError, match="was prepared without attributes"):
        load(tmp_path / "x.limner", attributes=["hair"])
    assert load(tmp_path / "x.limner", attributes=[]).classes == ["cat", "dog"]  # none are asked for


def test_values_that_differ_in_their_case_are_named(photos: Path):
    dataset = all_of(columns(photos, hair=["red", "Red", "grey", "Black", "blonde", "black"] * 2))
    assert dataset.condition.values["hair"] == ["Black", "Red", "black", "blonde", "grey", "red"]
    assert "hair: Black and black differ only in their case: write one if they are the same" in dataset.notes


def test_a_store_keeps_intervals_and_refuses_others(photos: Path, tmp_path: Path):
    columns(photos, age=range(10, 10 + N), hair=HAIR * 6)
    result = prepare(photos, tmp_path / "x.limner", bins={"age": [15]})
    assert result["attributes"] == {"age": ["below-15", "15+"], "hair": sorted(HAIR)}
    assert load(tmp_path / "x.limner").condition.values["age"] == ["below-15", "15+"]
    with pytest.raises(
        LimnerError, match="intervals are those of its preparation; leave bins out, or prepare it again"
    ):
        load(tmp_path / "x.limner", bins={"age": [12]})
    with pytest.raises(LimnerError, match=r"unknown attribute of .* 'hat'; did you mean 'hair'"):
        load(tmp_path / "x.limner", attributes=["hat"])


def test_a_store_whose_labels_are_no_values_is_damaged(photos: Path, tmp_path: Path):
    prepare(photos, tmp_path / "x.limner")
    for wrong in (np.full((N, 2), 2), np.full((N, 2), -2), np.zeros((N, 3), np.int64), np.zeros(N, np.int64)):
        np.save(tmp_path / "x.limner/labels.npy", wrong)
        with pytest.raises(LimnerError, match=r"x.limner is damaged"):
            load(tmp_path / "x.limner")


def test_a_layout_is_kept_until_its_table_or_what_is_asked_changes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LIMNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "FEWEST", 1)
    monkeypatch.setattr(layout_cache, "FEWEST", 1)
    write(photos, [{"file_name": f"{i:02}.png", **cells(i), "text": f"no {i}"} for i in range(N)])
    first = all_of(photos)
    found_out: list[object] = []
    layout_of = layout_cache.layout_of
    monkeypatch.setattr(layout_cache, "layout_of", lambda *args: found_out.append(args) or layout_of(*args))
    second = all_of(photos)
    assert not found_out
    assert (second.texts, second.notes, second.fingerprint) == (first.texts, first.notes, first.fingerprint)
    assert said(second) == said(first)
    assert list(all_of(photos, attributes=["hair"]).condition.values) == ["hair"]
    write(photos, [{"file_name": f"{i:02}.png", **cells(i + 1)} for i in range(N)])
    assert said(all_of(photos)) != said(first)
    assert len(found_out) == 2


def test_an_unreadable_picture_is_replaced_by_one_with_the_same_attributes(photos: Path, paint: Callable[..., Any]):
    dataset = all_of(photos, cache=False)
    raw = bytearray((photos / "03.png").read_bytes())
    raw[60:-20] = bytes(len(raw) - 80)
    (photos / "03.png").write_bytes(raw)  # its header is whole
    labels = dataset.labels
    assert torch.equal(labels[3], labels[9])
    assert torch.equal(dataset.fetch([3]), dataset.fetch([9]))


def test_a_zip_reads_its_tables_in_place(photos: Path, tmp_path: Path):
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", photos))
    store = open_store(packed)
    assert store.tables == ["metadata.csv"]
    assert len(store.names) == N
    assert said(all_of(packed)) == said(all_of(photos))


# --- limner data check ------------------------------------------------------------------------------------


def test_the_check_counts_values_names_what_never_meets_and_what_to_mend(folder_of):
    root = folder_of(*(f"{i:02}.png" for i in range(60)))
    rows: list[dict[str, Any]] = []
    for i in range(60):
        glasses = "round" if i < 20 else "none"
        hair = "" if i == 0 else "grey" if i >= 40 else "red"  # no grey hair with round glasses
        rows.append({"file_name": f"{i:02}.png", "glasses": glasses, "hair": hair, "text": "a face" if i else ""})
    write(root, [*rows, {"file_name": "gone.png"}])
    report = check(root)
    assert report.attributes == {
        "glasses": {"none": 40, "round": 20},
        "hair": {"grey": 20, "red": 39, "": 1},
    }
    assert report.captions == {"captions": 59, "different": 1, "images": 59}
    assert report.classes is None
    ((a, b, expected),) = report.never_together
    assert (a, b) == ("glasses=round", "hair=grey")
    assert expected == pytest.approx(19 * 20 / 59)
    text = report.text()
    assert "  glasses: none 40, round 20\n  hair: grey 20, red 39, not known 1\n" in text
    for finding in (
        "the file is not there for 1 row of metadata.csv (such as gone.png)",
        "a caption is empty in 1 row of metadata.csv (such as that of 00.png)",
        "1 pairs of values occur in no image (such as glasses=round with hair=grey, in 6 if they were independent): a"
        " model can only guess what such images look like",
    ):
        assert finding in report.findings
        assert finding not in report.layout
    assert report.to_dict()["attributes"]["hair"][""] == 1
    few = report.findings
    assert not [finding for finding in few if "values have fewer" in finding]
    write(root, rows[:-5])
    assert [f for f in check(root).findings if f.startswith("1 values have fewer than 20 images (hair=grey 15)")]
