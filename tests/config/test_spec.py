"""A signature is the only place where an option is declared."""

from __future__ import annotations

from pathlib import Path

import pytest

import limner
from limner.config import recipe as recipes
from limner.config.catalogue import names
from limner.config.spec import Spec, schema
from limner.core.errors import LimnerError

MLP = {"name": "mlp.Encoder", "z": 4, "widths": [8]}


def test_values_are_checked_and_converted() -> None:
    spec = Spec.parse("train", {"images": "1.2M", "time": "1h30m"}, name="trainer")
    assert spec.kwargs == {"images": 1_200_000, "time": 5400.0}
    assert Spec.parse("optimiser", {"name": "adam", "lr": "1e-4"}).kwargs == {"lr": 1e-4}


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        ("model", {"name": "gna"}, "unknown model 'gna'; did you mean 'gan'"),
        ("model", {"name": "vae", "bta": 1}, "unknown argument of vae 'bta'; did you mean 'beta'?"),
        ("model", {"name": "vae", "beta": "much"}, "model.beta: input should be a valid number"),
        ("model", {"name": "vae", "likelihood": "poisson"}, "model.likelihood: input should be 'bernoulli'"),
        ("model", {"name": "vae", "encoder": {"name": "mlp.Encoda"}}, "did you mean 'mlp.Encoder'"),
        ("model", {"name": "vae", "encoder": {"name": "os.system"}}, "unknown net 'os.system'"),
        ("model", {"name": "../gan"}, "unknown model"),
        ("net", {"name": "layers.nn"}, "unknown net"),
        ("model", {"name": ["vae"]}, "must be text"),
        ("model", [1], "expected 'name: …'"),
        ("train", {"name": "trainer", "images": "many"}, "is not a count; write 5000, 10k or 1.2M"),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest_known_one(kind: str, data: object, message: str) -> None:
    with pytest.raises(LimnerError) as error:
        Spec.parse(kind, data)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_nested_nets_get_facts_and_arguments_of_their_model() -> None:
    spec = Spec.parse(
        "model", {"name": "vae", "z": 7, "encoder": {"name": "mlp.Encoder", "heads": 2}, "decoder": "mlp.Decoder"}
    )
    whole = spec.resolve(shape=(3, 4, 5), classes=0)
    assert whole.kwargs["encoder"].kwargs == {"heads": 2, "z": 7, "shape": (3, 4, 5), "classes": 0}
    model = spec.build(shape=(3, 4, 5), classes=0)
    assert model.encoder.z == model.decoder.z == 7
    assert Spec.from_json("model", whole.to_json()).to_dict() == whole.to_dict()
    with pytest.raises(LimnerError, match="argument 'shape' is missing"):
        spec.build()


def test_an_error_of_a_constructor_is_a_limner_error() -> None:
    spec = Spec.parse("model", {"name": "vae", "encoder": "mlp.Encoder", "decoder": "mlp.Decoder"})
    with pytest.raises(LimnerError, match="write heads: 2"):
        spec.build(shape=(1, 8, 8), classes=0)


def test_every_name_has_a_schema_and_every_option_a_meaning() -> None:
    for kind in ("model", "net", "data", "optimiser", "train"):
        for name in names(kind):
            described = schema(kind, name)
            assert described["additionalProperties"] is False
            for option, entry in described["properties"].items():
                assert entry.get("description"), f"{kind} {name}.{option} has no entry under Args:"
            assert not {"shape", "classes"} & set(described["properties"])


def test_overrides_reach_their_section() -> None:
    r = recipes.load(
        "vae-mnist", {"batch": 32, "beta": 2, "optim.VAE.lr": 0.1, "model.encoder.widths": [9], "time": "5m"}
    )
    assert (r.train.kwargs["batch"], r.train.kwargs["time"]) == (32, 300.0)
    assert r.model.kwargs["beta"] == 2
    assert r.model.kwargs["encoder"].kwargs["widths"] == (9,)
    assert r.optim["VAE"].kwargs["lr"] == 0.1


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bach", 3, "unknown key 'bach'; did you mean 'batch'"),
        ("train.bach", 3, "did you mean 'batch'"),
        ("optim.G.lr", 3, "unknown group 'G' in optim.G.lr; this recipe has the groups VAE"),
        ("trian.batch", 3, "unknown key 'trian'; did you mean 'train'"),
        ("batch", "few", "train.batch: input should be a valid integer"),
        ("train.batch", -1, "batch must be at least 1"),
        ("data", "mnist-5kk", "unknown data 'mnist-5kk'; did you mean 'mnist-5k'"),
        ("train.batch.x", 3, "has no parts"),
    ],
)
def test_a_wrong_override_is_one_clear_line(key: str, value: object, message: str) -> None:
    with pytest.raises(LimnerError) as error:
        recipes.load("vae-mnist", {key: value}).train.build()
    assert message in str(error.value)


def test_other_data_keep_the_options_that_still_fit(tmp_path: Path) -> None:
    r = recipes.load("dcgan-32", {"data": f"{tmp_path}/photos"})
    assert r.data.to_dict() == {"name": "folder", "path": f"{tmp_path}/photos", "size": 32}
    assert recipes.load("dcgan-32", {"data": "ring"}).data.to_dict() == {"name": "ring"}
    assert recipes.load("dcgan-32", {"data": "digits", "data.size": 16}).data.kwargs == {"size": 16}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: !!python/object/apply:os.system ['touch pwned']", "tags such as !!int are not allowed"),
        ("a: &a [1]\nb: *a", "aliases are not allowed"),
        ("model: [", "is not a recipe"),
        ("- 1", "expected keys and values"),
        ("modle: {name: vae}", "unknown section 'modle'; did you mean 'model'"),
        ("model: {name: vae}", "section 'data' is missing"),
        ("{" * 13 + "a: 1" + "}" * 13, "is not a recipe"),
        ("#" + "x" * (1 << 18), "larger than"),
        ("\x00", "is not a recipe"),
    ],
)
def test_a_hostile_or_broken_file_is_refused(
    tmp_path: Path, text: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(LimnerError, match=message):
        recipes.load(file)
    assert not (tmp_path / "pwned").exists()


def test_unknown_recipe_and_missing_file() -> None:
    with pytest.raises(LimnerError, match="did you mean 'vae-mnist'"):
        recipes.load("vae-minst")
    with pytest.raises(LimnerError, match="there is no recipe file"):
        recipes.load("nowhere.yaml")


@pytest.mark.parametrize(
    "key", ["vae-mnist", "vae", "mlp.Encoder", "train", "train.batch", "vae.beta", "adam.lr", "mnist-5k", "size"]
)
def test_explain_knows_every_kind_of_name(key: str) -> None:
    options = limner.explain(key).options
    assert options
    assert all(o["text"] for o in options)


def test_explain_of_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(LimnerError, match=r"did you mean 'train\.batch'"):
        limner.explain("train.bacth")
