"""Overrides are read as a person means them; what cannot be used is told at once, with what was meant."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from retinue.pipeline.composition import compose, compose_collecting, compose_to, load_params
from retinue.pipeline.errors import Fault, SettingsError, SettingsFaults
from retinue.pipeline.overrides import parsed, readable

FOLDER = ("source=image_folder",)


@pytest.fixture(autouse=True)
def _in_the_checkout(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


CHARACTERS = st.characters(blacklist_categories=("Cc", "Cs", "Cn", "Zl", "Zp"))
PRINTABLE = st.text(CHARACTERS, min_size=1, max_size=60).filter(str.strip)  # at most 240 bytes: no name is too long


@given(PRINTABLE)
@pytest.mark.slow
def test_any_path_is_the_text_that_was_given(text: str) -> None:
    """But for what docs say: ~ at the start, ${ of a reference, a number, a word of YAML, quotes around the whole."""
    override = f"source.path={text}"
    found = parsed(override)
    value = text if found is None else found.value()
    if text[0] == "~" or "${" in text or not isinstance(value, str) or text.lstrip()[0] in "'\"":
        return
    read = readable(override)
    assert isinstance(read, str)
    again = parsed(read)
    assert again is not None
    assert again.value() == text
    assert readable(read) == read
    written = OmegaConf.to_yaml(OmegaConf.create({"path": again.value()}))
    assert OmegaConf.create(written)["path"] == text


@pytest.mark.parametrize(
    "text",
    [
        *(
            "données",
            "photos (1)",
            "a=b",
            "a#b",
            "写真",
            "a, b",
            "[a]",
            "{a: b}",
            "it's",
            'the "best"',
            "a ",
            " a",
            "a\\b",
        ),
        *(
            "a\\",
            "$HOME",
            "a:b",
            "INPUT => FC",
            "choice(1)",
            "./1e3",
            "a'",
            "\\\"'",
            "*?!%&|<>;`",
            "+a",
            "=",
            "@a",
            "-a",
        ),
    ],
)
@pytest.mark.slow
def test_a_path_that_hydra_has_no_words_for(text: str) -> None:
    source = compose([*FOLDER, f"source.path={text}"])["source"]
    assert (source["path"], source["inputs"]) == (text, text)


def test_quotes_around_the_whole_are_hydras() -> None:
    assert compose([*FOLDER, "source.path='a, b'"])["source"]["path"] == "a, b"
    assert compose([*FOLDER, 'source.path="~/a"'])["source"]["path"] == str(Path.home() / "a")


@pytest.mark.parametrize("value", ["{path}_mask.png", "masks/{path}.png", "{folder}/{stem}_m.png", "{path}"])
def test_a_word_in_braces_stands_for_another(value: str) -> None:
    assert compose([*FOLDER, "source.path=photos", f"source.masks={value}"])["source"]["masks"] == value
    assert compose([*FOLDER, "source.path=photos", f"source.masks='{value}'"])["source"]["masks"] == value


def test_a_mapping_that_is_not_closed_is_still_a_slip() -> None:
    with pytest.raises(SettingsFaults, match="Count its brackets and quotes"):
        compose([*FOLDER, "source.path=photos", "source.masks={path: a"])


def test_the_home_folder() -> None:
    assert compose([*FOLDER, "source.path=~/photos"])["source"]["path"] == str(Path.home() / "photos")
    assert compose([*FOLDER, "source.path=./~photos"])["source"]["path"] == "./~photos"
    with pytest.raises(
        SettingsFaults, match=r"source\.path: got ~nobodyx, .* no user 'nobodyx'; .* source\.path=\./~nob"
    ):
        compose([*FOLDER, "source.path=~nobodyx"])


@pytest.mark.parametrize("value", ["true", "1e3", "null", "123", "", " ", "nan"])
def test_a_path_that_is_no_text_is_refused(value: str) -> None:
    with pytest.raises(SettingsFaults, match=r"source\.path: got .*, expected a path\. .* source\.path=\./"):
        compose([*FOLDER, f"source.path={value}"])


def test_other_values_that_are_text() -> None:
    pattern = "INPUT => [CONV(64, kernel=3) => RELU]*2 => POOL? => FC"
    for written in (pattern, f'"{pattern}"'):
        assert compose(["model=pattern", f"model.pattern={written}"])["model"]["pattern"] == pattern
    assert compose(["report.title=Été (2024)"])["report"]["title"] == "Été (2024)"


MET = [
    ("lr=0.1", "lr: got 0.1, expected a setting or a group of conf/. Unknown key 'lr'. Did you mean 'optimizer.lr'?"),
    ("max_epochs=3", "Did you mean 'train.max_epochs'?"),
    ("train.max_epoch=3", "Did you mean 'train.max_epochs'?"),
    ("optimizer.lrr=1", "Did you mean 'optimizer.lr'?"),
    ("optimiser.lr=1", "Did you mean 'optimizer.lr'?"),
    ("sed=1", "Did you mean 'seed'?"),
    ("momentum=0.9", "Did you mean 'optimizer.momentum'?"),
    (
        "batch_size=1",
        "Did you mean 'baseline.batch_size' or 'calibrate.batch_size' or 'evaluate.batch_size' or 'train.batch_size'?",
    ),
    (
        "source.path=x",
        "source.path: got x, expected a setting of source=digits. source=digits has no path; add source=",
    ),
    ("optimizer.momentum=0.9", "optimizer=adamw has no momentum; add optimizer=rmsprop or optimizer=sgd."),
    ("optimizer.lr.x=1", "Did you mean 'optimizer.lr'?"),
    (
        "model=resnet81",
        "expected a file of conf/model/. Unknown model 'resnet81'. Did you mean 'resnet18'? Available: alexnet, ",
    ),
    ("experiment=hymenopteran", "Unknown experiment 'hymenopteran'. Did you mean 'hymenoptera'?"),
    ("train=5", "train: got 5, expected a file of conf/train/."),
    ("model=null", "model: got null, expected a file of conf/model/."),
    ("train=", "train: got nothing, expected a file of conf/train/."),
    ("foo.bar=3", "foo.bar: got 3, expected a setting or a group of conf/."),
    ("++foo.bar=3", "foo.bar: got 3, expected a setting or a group of conf/."),
    ("foo/bar=x", "foo/bar: got x"),
    ("model@foo=resnet18", "Did you mean 'model'?"),
    ("~nothing", "nothing: got nothing, expected a setting"),
    ("+train.patience=3", "train.patience: got 3, expected a new key after a +."),
    ("+model=resnet18", "model: got resnet18, expected a choice without a +."),
    ("++model=resnet18", "model: got resnet18, expected a choice without a +."),
    ("sweep=digits_grid", "`retinue sweep sweep=digits_grid` does."),
    ("optimizer.lr", "optimizer.lr: got no value, expected KEY=VALUE"),
    ("--multirun", "--multirun: got no value, expected KEY=VALUE"),
    ("=3", "got 3, expected KEY=VALUE"),
    ("a b=1", "a b: got 1, expected a key such as"),
    ("optimizer.betas=[0.9", "optimizer.betas: got [0.9, expected a value that Hydra can read."),
    ("optimizer.lr=1,2", "optimizer.lr: got 1,2, expected one value. `retinue sweep` tries several"),
    ("optimizer.lr=interval(1,2)", "expected one value. `retinue sweep` tries several"),
    ("preprocess.image_size=${nope}", "refers to nope, which is no setting of conf/."),
    ("weights=imagenet", "refers to model.imagenet.url, which this choice of model does not have; see conf/model/."),
    ("transfer=small_similar", "transfer: got small_similar, expected a value that composes with the others."),
    ("seed=${nothing}", "seed: got ${nothing}, expected a value that composes with the others."),
]


@pytest.mark.slow
def test_all_faults_are_told_at_once_and_the_rest_is_composed() -> None:
    values, faults = compose_collecting([*(override for override, _ in MET), "train.patience=7"])
    told = [str(fault) for fault in faults]
    assert len(told) == len(MET)
    for override, message in MET:
        assert any(message in each for each in told), (override, told)
    assert values["train"]["patience"] == 7
    assert {**values, "train": None} == {**compose(), "train": None}


@pytest.mark.parametrize("override", ["lr=0.1", "optimizer.lrr=1", "weights=imagenet", "source.path=x", "a b=1"])
@pytest.mark.slow
def test_one_fault_is_one_line(override: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsFaults) as caught:
        compose_to(tmp_path / "params.yaml", [override, "seed=3"])
    (fault,) = caught.value.faults
    assert str(caught.value) == str(fault)
    assert not (tmp_path / "params.yaml").exists()


def test_several_faults_are_a_list() -> None:
    faults = [Fault("a", "0", "1"), Fault("b", "x", "y", "Do so.")]
    assert str(SettingsFaults(faults)) == "\n  ".join(
        ("2 settings cannot be used:", "a: got 0, expected 1.", "b: got x, expected y. Do so.")
    )
    assert SettingsFaults(faults).exit_code == 2


def test_plus_adds_what_a_class_takes_and_tilde_removes() -> None:
    values = compose(["+optimizer.eps=1e-6", "++optimizer.lr=1", "~optimizer.betas"])["optimizer"]
    assert (values["eps"], values["lr"]) == (1e-6, 1)
    assert "betas" not in values


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("source.path=a,b", 'source.path="a","b"'),
        ("source.path=données, photos (1)", 'source.path="données","photos (1)"'),
        ('source.path="a,b",c', 'source.path="a,b","c"'),
        ("optimizer.lr=0.1,0.2", "optimizer.lr=0.1,0.2"),
        ("optimizer.lr=tag(log, interval(0.1,1))", "optimizer.lr=tag(log, interval(0.1,1))"),
        ("optimizer.betas=[0.9,0.99],[0.8,0.99]", "optimizer.betas=[0.9,0.99],[0.8,0.99]"),
        ("model.pattern=INPUT => CONV(3, kernel=3) => FC", 'model.pattern="INPUT => CONV(3, kernel=3) => FC"'),
    ],
)
def test_a_comma_of_a_sweep_stands_between_values(given: str, read: str) -> None:
    assert readable(given, several=True) == read


def test_load_params_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"params\.yaml: no such file\. `retinue compose` writes it"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty. `retinue compose` writes it anew"),
        (b"seed: 0\ntrain: [1\n", "line 3: "),
        (b"seed: 0\n\ntrain: \0\n", "line 3: a character that YAML does not allow"),
        (b"seed: 0\nseed: 1\n", "line 2: found duplicate key seed"),
        (b"seed: ${nope}\n", "Interpolation key 'nope' not found"),
        (b"seed: \xff\n", "not text in UTF-8"),
        (b"- 1\n", "expected a mapping of sections"),
        (b"5\n", "expected a mapping of sections"),
    ],
)
def test_load_params_says_where_a_file_is_wrong(text: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(SettingsError) as caught:
        load_params(path)
    assert str(caught.value).startswith(f"{path}: {message}")


ALIASES = "a: &a [1]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in pairwise("abcdefghij"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "expected a mapping of sections"),
        ("{a: " * 100_000, "nested more than 64 levels deep"),
        ("seed: " + "[" * 100_000, "nested more than 64 levels deep"),
        (ALIASES, "its aliases stand for more than 1000000 values"),
        ("seed: &a [*a]\n", "the alias *a stands for what it is part of"),
    ],
    ids=["deep", "deep mappings", "deep below", "aliases", "in itself"],
)
def test_a_file_that_has_no_end_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """The first three end the process in libyaml's composer, or in a recursion; the fourth stands for 10^9 values."""
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_params(tmp_path / "params.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'params.yaml'}: {message}")
    assert str(caught.value).endswith("`retinue compose` writes it anew from conf/.")


def test_a_name_that_is_too_long_is_refused() -> None:
    with pytest.raises(
        SettingsFaults, match=r"source\.path: got .*…, expected a path whose names are at most 255 bytes"
    ):
        compose([*FOLDER, f"source.path=photos/{'é' * 128}"])
