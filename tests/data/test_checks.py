"""The check finds each fault, reports nothing else, and survives every file."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from limner.api import train
from limner.cli import main
from limner.core import train as trainer
from limner.core.errors import LimnerError
from limner.data import check, load
from limner.data.arrays import Arrays
from limner.data.registry import IMAGES, SOURCES, Source


def has_finding(report, part: str) -> bool:
    return any(part in finding for finding in report.findings)


@pytest.fixture
def faulty(folder_of, paint):
    """A folder with each fault that the check knows."""
    photos = folder_of(*(f"cat/{i:03}.png" for i in range(300)), *(f"dog/{i:03}.png" for i in range(5)), size=(32, 32))
    (photos / "cat/empty.png").write_bytes(b"")
    (photos / "cat/text.png").write_text("words")
    (photos / "cat/half.png").write_bytes((photos / "cat/000.png").read_bytes()[:900])
    Image.open(photos / "cat/001.png").save(photos / "dog/copy.bmp")  # the same pixels in another format
    smooth = Image.fromarray((np.add.outer(np.arange(48) ** 2 / 20, np.arange(48)) + 20).astype(np.uint8))
    smooth.save(photos / "cat/smooth.png")
    smooth.resize((44, 44)).save(photos / "cat/smooth-smaller.png")
    paint(990, (8, 8)).save(photos / "cat/tiny.png")
    paint(991, (32, 32), "RGBA").save(photos / "cat/clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    paint(992, (32, 32)).save(photos / "cat/turned.jpg", exif=exif)
    frames = [paint(993 + i, (32, 32)) for i in range(2)]
    frames[0].save(photos / "cat/moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    (photos / "readme.md").write_text("hello")
    return photos


def test_everything_that_is_wrong_is_found(faulty):
    report = check(faulty)
    assert report.images == 312
    assert {p for p, _ in report.bad} == {"cat/empty.png", "cat/text.png", "cat/half.png"}
    assert report.classes == {"cat": 306, "dog": 6}
    assert report.duplicates == [["cat/001.png", "dog/copy.bmp"]]
    assert report.near_duplicates == [("cat/smooth-smaller.png", "cat/smooth.png")]
    assert report.tiny == ["cat/tiny.png"]
    assert report.alpha == ["cat/clear.png"]
    assert report.rotated == ["cat/turned.jpg"]
    assert report.animated == ["cat/moving.webp"]
    assert report.ignored == {".md": 1}
    assert report.modes["L"] == 2
    for part in (
        "3 bad files are left out (",
        "only 312 images",
        "2 of 312 images are grey",
        "4 different sizes (32x32 309",
        "1 images are stored turned",
        "1 images have transparency",
        "1 files are animated",
        "1 images are smaller than 16 pixels",
        "1 classes have fewer than 20 images (dog 6)",
        "classes are unbalanced (cat 306, dog 6)",
        "1 images repeat another one exactly",
        "1 pairs look nearly the same",
    ):
        assert has_finding(report, part), part
    assert not report.ok


def test_a_clean_set_has_no_findings(folder_of):
    report = check(folder_of(*(f"{c}/{i}.png" for c in "ab" for i in range(250)), size=(16, 16)))
    assert report.ok
    assert report.findings == []
    assert "nothing to put right" in report.text()
    assert report.text().startswith("photos: 500 images\n  found 500 images in 2 class folders (a 250, b 250)")


def test_a_folder_without_a_good_image_is_still_reported(folder_of):
    photos = folder_of("a.png")
    (photos / "a.png").write_bytes(b"x")
    report = check(photos)
    assert report.images == 0
    assert has_finding(report, "1 bad files")
    assert has_finding(report, "0 usable images")
    with pytest.raises(LimnerError, match="there is no folder"):
        check(photos / "none")


def test_a_zip_is_checked_in_place(faulty, tmp_path):
    with zipfile.ZipFile(tmp_path / "mess.zip", "w") as z:
        for file in sorted(faulty.rglob("*.*")):
            z.write(file, file.relative_to(faulty))
    zipped, folder = check(tmp_path / "mess.zip").to_dict(), check(faulty).to_dict()
    assert zipped.pop("name") == "mess"
    assert folder.pop("name") == "photos"
    assert zipped == folder


@pytest.fixture
def limner(monkeypatch, capsys):
    """Runs the command line in this process; gives its exit code and what it printed."""

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["limner", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return exit_.value.code, *capsys.readouterr()

    return run


def test_json_is_one_document(faulty, limner):
    code, out, _ = limner("data", "check", faulty, "--json")
    assert code == 0
    document = json.loads(out)
    assert document["ok"] is False
    assert document["images"] == 312
    assert ["cat/empty.png", "empty file"] in document["bad"]


def test_text_names_the_bad_files(faulty, limner):
    assert "    cat/empty.png: empty file" in limner("data", "check", faulty)[1]


def test_get_and_list(limner):
    listed = json.loads(limner("data", "list", "--json")[1])
    assert {"mnist-5k", "folder", "ring"} <= set(listed)
    _, output, _ = limner("data", "get", "digits")
    assert output == "digits: 1797 images of 1×8×8, 10 classes; 179 held out for testing\n"
    code, _, error = limner("data", "get", "digit")
    assert code == 2
    assert "did you mean 'digits'" in error


@pytest.fixture
def mixed(folder_of):
    """Two classes, and files of each kind that a set leaves out."""
    photos = folder_of(*(f"{c}/{k:02}.png" for c in ("cats", "dogs") for k in range(12)), "overview.png")
    for name in ("a.jp2", "b.jxl", "notes.txt", "cats/broken.png", "@eaDir/thumb.png", ".DS_Store"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"x")
    return photos


def test_what_is_left_out_is_named_with_what_to_do(mixed):
    report = check(mixed)
    assert report.classes == {"cats": 12, "dogs": 12}
    assert report.left_out == [("overview.png", "beside the class folders")]
    assert report.examples == {".jp2": ["a.jp2"], ".jxl": ["b.jxl"], ".txt": ["notes.txt"]}
    assert report.hidden == [".DS_Store", "@eaDir"]
    assert has_finding(report, "(.jp2 1, JPEG 2000: convert it to PNG), such as a.jp2")
    assert has_finding(report, "JPEG XL: convert it to PNG or JPEG (djxl)), such as b.jxl")
    assert "ignored 1 other files (.txt 1), such as notes.txt" in report.text()
    assert "hidden files and files of the system (.DS_Store, @eaDir)" in report.text()
    assert json.loads(json.dumps(report.to_dict()))["ignored"] == {".jp2": 1, ".jxl": 1, ".txt": 1}


def test_a_set_says_what_it_leaves_out(mixed):
    dataset = load(mixed)
    assert dataset.quarantine == [
        ("cats/broken.png", report_reason(mixed)),
        ("overview.png", "beside the class folders"),
    ]
    said = "\n".join(dataset.notes)
    for part in (
        "convert it to PNG",
        "djxl",
        "ignored 1 other files",
        "@eaDir",
        "left out 1 bad files",
        "overview.png",
    ):
        assert part in said
    assert "numbers of the classes: 0 cats, 1 dogs" in said


def test_a_file_that_is_bad_inside_is_said_when_a_training_meets_it(folder_of, tmp_path):
    photos = folder_of(*(f"{k:02}.png" for k in range(24)), size=(32, 32))
    for name in ("00.png", "03.png"):  # an image to train on, and a held-out one
        raw = (photos / name).read_bytes()
        (photos / name).write_bytes(raw[: len(raw) // 2])  # its header is whole
    settings = {"images": 64, "batch": 8, "size": 8, "samples": 2, "device": "cpu", "data.cache": False}
    run = train("vae-mnist", data=str(photos), out=tmp_path / "run", **settings)
    assert sorted(run.read_json("quarantine.json")) == [["00.png", "truncated"], ["03.png", "truncated"]]
    assert "left out so far: 1 truncated" in run.events()[0]["notes"], "scores have read the images to train on"
    assert any("1 files could not be read while training" in str(e.get("message")) for e in run.events())


def test_a_file_that_becomes_bad_is_said_at_the_end(folder_of, tmp_path, monkeypatch):
    photos = folder_of(*(f"{k:02}.png" for k in range(24)))
    settings = {"images": 64, "batch": 8, "samples": 2, "device": "cpu", "data.cache": False, "log_images": 64}
    take_step = trainer._Training.take_step

    def spoil(self):
        (photos / "00.png").write_bytes(b"")
        take_step(self)

    monkeypatch.setattr(trainer._Training, "take_step", spoil)
    run = train("vae-mnist", data=str(photos), out=tmp_path / "run", **settings)
    assert run.read_json("quarantine.json") == [["00.png", "empty file"]]
    said = [e["message"] for e in run.events() if e["event"] == "warning"]
    assert said == [
        "1 files could not be read while training, and others were taken for them: 00.png (quarantine.json says why)"
    ]


def test_names_are_shown_on_one_line(folder_of):
    photos = folder_of("0.png")
    for name in ("a\nb.png", "\x1b[31m.png", "c\nd.txt", "e\nf.psd"):
        (photos / name).write_bytes(b"x")
    text = str(check(photos))
    assert "\x1b" not in text
    assert all(name in text for name in (r"'a\nb.png'", r"'c\nd.txt'", r"'e\nf.psd'"))


def report_reason(photos):
    return check(photos).bad[0][1]


def test_only_pictures_of_unread_formats_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "a.jp2").write_bytes(b"x")
    with pytest.raises(LimnerError, match=r"no images that are read: left out 1 pictures .* convert it to PNG"):
        load(tmp_path)


def test_a_named_set_is_described_like_a_folder(monkeypatch):
    digits = check("digits")
    assert (digits.images, digits.sizes, digits.modes) == (1797, {"8x8": 1797}, {"L": 1797})
    assert sum(digits.classes.values()) == 1797
    assert digits.attributes is None
    assert "179 of them are held out" in digits.text()
    with pytest.raises(LimnerError, match="ring has points"):
        check("ring")

    def faces():
        """Faces."""
        images = np.arange(600, dtype=np.uint8).repeat(64).reshape(600, 8, 8)  # 600 = 2 · 256 + 88 pictures
        rows = np.stack([np.arange(600) % 3, np.arange(600) % 2], 1)
        attributes = {"glasses": ["none", "round", "square"], "hair": ["red", "grey"]}
        return Arrays(images, rows, attributes=attributes, test=np.arange(600) < 60, texts=[["a face"]] * 600)

    monkeypatch.setitem(SOURCES, "faces", Source("faces", faces, IMAGES, True))
    report = check("faces")
    assert report.attributes == {
        "glasses": {"none": 200, "round": 200, "square": 200},
        "hair": {"red": 300, "grey": 300},
    }
    assert report.captions == {"captions": 600, "different": 1, "images": 600}
    assert "glasses: none 200, round 200, square 200" in report.text()
    assert report.never_together == [], "each pair is in 100 pictures"
    assert len(report.duplicates) == 256, "pictures of the same pixels"
    assert report.duplicates[0] == ["#0", "#256", "#512"]
