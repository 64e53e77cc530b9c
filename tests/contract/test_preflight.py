"""Every choice of conf/ passes the check that comes before anything runs; what is wrong is told at once."""

import math
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from project import ROOT, Project
from retinue.cli import main
from retinue.pipeline.checked import FOLDER, ensure_checked, with_found_faults
from retinue.pipeline.composition import compose, compose_collecting
from retinue.pipeline.errors import Fault, SettingsFaults
from retinue.preflight import SECTIONS, check

DEFAULTS = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text("utf-8"))["defaults"]
GROUPS = [next(iter(entry)) for entry in DEFAULTS if isinstance(entry, dict)]
CHOICES = [f"{group}={path.stem}" for group in GROUPS for path in sorted((ROOT / "conf" / group).glob("*.yaml"))]
NEEDS = {  # what a choice does not come with
    "source=image_folder": ["source.path=photos"],
    "source=shards": ["source.path=photos"],
    "source=table": ["source.path=photos", "source.table=labels.csv"],
    "source=archive": ["source.path=photos.zip"],
    "source=archive_url": ["source.url=https://host/photos.zip", f"source.checksum=sha256:{'0' * 64}"],
    "weights=file": ["weights.path=weights.pth"],
    "weights=bundle": ["weights.path=bundle"],
    "weights=url": ["weights.url=https://host/weights.pth", "weights.sha256=01234567"],
    "weights=imagenet": ["model=resnet18"],
    "experiment=photographs": ["source.path=photos"],
    "experiment=hymenoptera": ["source.path=photos", "weights=file", "weights.path=weights.pth"],
}
ABSENT = {  # what this machine may not have
    "model=timm": (find_spec("timm") is not None, "model: .*timm, an optional extra, is not installed"),
    "trainer=gpu": (torch.cuda.is_available(), "trainer: got gpu, .*accelerator=gpu"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with nothing but conf/ and the files that `NEEDS` names."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n", "utf-8")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "labels.csv").touch()
    (tmp_path / "photos.zip").touch()
    (tmp_path / "bundle").mkdir()
    torch.save({"a": torch.zeros(1)}, tmp_path / "weights.pth")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "bundle" / "weights.safetensors")
    sources = [f"src/retinue/sources/{name}.py" for name in ("archive", "idx", "cifar", "oxford_pets", "flowers102")]
    watched = ("requirements.lock", "src/retinue/transfer/weights.py", "src/retinue/pipeline/artifacts.py")
    for name in (*watched, *sources):  # what DVC watches by default
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_choice(choice: str) -> None:
    """Checks the composition with `choice` and what it needs, at the size of images that its network asks for."""
    needs = NEEDS.get(choice, [])
    if choice.startswith("model="):
        needs = ["preprocess=rgb224"]
    elif choice.startswith("transfer=") and choice != "transfer=scratch":
        needs = ["model=resnet18"]
    try:
        check(compose([choice, *needs]))
    except SettingsFaults as error:
        size = re.search(r"Set preprocess\.image_size=(\d+)", str(error))
        if size is None:
            raise
        check(compose([choice, *needs, f"preprocess.image_size={size[1]}"]))


def test_the_sections_are_those_of_the_composition(place: Path) -> None:
    assert {*SECTIONS} == {*compose()}


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_passes(choice: str, place: Path) -> None:
    present, message = ABSENT.get(choice, (True, ""))
    if present:
        check_choice(choice)
        return
    with pytest.raises(SettingsFaults, match=message) as caught:
        check_choice(choice)
    assert len(caught.value.faults) == 1


WRONG = [  # override, key and what the answer says
    ("+callbacks.x=1", "callbacks.x", "expected a setting or a group of conf/"),
    ("seed=99999999999999999999", "seed", "an integer from 0 to 2^63 - 1"),
    ("source.formats=[PNK]", "source.formats", "PNG"),
    ("+source.pth=x", "source.pth", "expected a setting of source"),
    ("preprocess.channels=2", "preprocess.channels", "one of 1, 3"),
    ("preprocess.val_fraction=0.9", "preprocess.val_fraction", "less than 1 together"),
    ("augment.transforms=[{name: Afine}]", "augment.transforms[0]", "Did you mean 'Affine'"),
    ("augment.copies_per_image=true", "augment.copies_per_image", "an integer >= 0"),
    ("+model.dropout=2", "model.dropout", "expected a setting of model"),
    ("weights.sha256=xyz", "weights.sha256", "8 to 64 hexadecimal digits"),
    ("transfer.lr_factor=0", "transfer.lr_factor", "a number in (0, 1]"),
    ("optimizer.lr=-1", "optimizer.lr", "Invalid learning rate"),
    ("optimizer.betas=[2, 0.9]", "optimizer.betas", "Invalid beta"),
    ("schedule.warmup_fraction=1", "schedule.warmup_fraction", "a number in [0, 1)"),
    ("schedule.min_factor=2", "schedule.min_factor", "a number in [0, 1]"),
    ("train.max_epochs=0", "train.max_epochs", "an integer >= 1"),
    ("train.precision=fp16", "train.precision", "one of 32-true"),
    ("train.eval_batch_size=1e400", "train.eval_batch_size", "an integer >= 1"),
    ("evaluate.confidence_level=.nan", "evaluate.confidence_level", "a number in (0, 0.999999]"),
    ("explain.explainer.target_layr=conv2", "explain.explainer.target_layr", "target_layer"),
    ("report.gallery_columns=9", "report.gallery_columns", "an integer in [1, 8]"),
    ("trainer.devices=0", "trainer.devices", "an integer >= 1"),
    ("tracking.mode=ofline", "tracking.mode", "Did you mean 'offline'"),
]


def told_of(overrides: list[str]) -> list[Fault]:
    """What `retinue compose` tells of `overrides`."""
    values, faults = compose_collecting([f"+{each}" if "layr" in each else each for each in overrides])
    return with_found_faults(faults, values)


@pytest.mark.parametrize("first", range(0, len(WRONG), 5))
def test_five_at_once_are_all_told(first: int, place: Path) -> None:
    several = WRONG[first : first + 5]
    told = {fault.key: str(fault) for fault in told_of([each for each, _, _ in several])}
    assert told.keys() == {key for _, key, _ in several}
    for _, key, expected in several:
        assert expected in told[key]


def test_all_of_them_are_told_in_one_answer(place: Path) -> None:
    assert {key for _, key, _ in WRONG} <= {fault.key for fault in told_of([each for each, _, _ in WRONG])}


def test_a_section_that_params_yaml_has_too_many_is_refused(place: Path) -> None:
    with pytest.raises(SettingsFaults, match=r"callbacks: got .*, expected one of the sections"):
        check({**compose(), "callbacks": {"x": 1}})


RELATED = [
    (["source=image_folder", "source.path=nowhere"], "source.path", "nowhere: no such folder"),
    (["source=image_folder", "source.path=weights.pth"], "source.path", "weights.pth: not a folder"),
    (["source=image_folder", "source.path=photos", "source.labels_csv=no.csv"], "source.labels_csv", "no.csv"),
    (["weights=file", "weights.path=no.pth"], "weights.path", "no such file"),
    (["source=image_folder", "source.path=."], "source.path", "A stage writes data/raw"),
    (["source=image_folder", "source.path=photos/../bundle/.."], "source.path", "A stage writes data/raw"),
    (["weights=bundle", "weights.path=models"], "weights.path", "A stage writes models"),
    (["source.inputs=data/raw/a"], "source.inputs", "expected a path apart from what the stages write"),
    (["source.inputs="], "source.inputs", "a path that exists"),
    (["source.inputs=nope"], "source.inputs", "a path that exists"),
    (["weights.inputs=nope"], "weights.inputs", "a path that exists"),
    (["preprocess.splits_csv=no.csv"], "preprocess.splits_csv", "no.csv: no such file"),
    (["preprocess.splits_csv=photos"], "preprocess.splits_csv", "photos: a folder"),
    (["preprocess.splits_csv=dvc.yaml"], "preprocess.inputs", "give preprocess.inputs=dvc.yaml as well"),
    (["preprocess.inputs=data/raw"], "preprocess.inputs", "a path apart from what the stages write"),
    (["preprocess.folds=5"], "preprocess.fold", "one of 0 to 4"),
    (["preprocess.folds=5", "preprocess.fold=5"], "preprocess.fold", "The first fold is 0"),
    (["preprocess.fold=0"], "preprocess.fold", "null, because preprocess.folds is"),
    (["preprocess.folds=2", "preprocess.fold=0", "preprocess.val_fraction=0.5"], "preprocess.val_fraction", "than 0.5"),
    (["trainer.accelerator=tpu"], "trainer.accelerator", "a library that is not installed"),
    (["optimizer.lr=inf"], "optimizer.lr", "got inf, expected finite"),
    (["optimizer.betas=[0.9,nan]"], "optimizer.betas", "expected finite"),
    (["model=mlp", "model.hidden=[9007199254740992]"], "model.hidden", "make no network"),
    (["model=mlp", "model.hidden=[4000000, 4000000]"], "model", "Twice its weights are 128 TB. Lower its widths"),
    (["model=pattern", "model.pattern=INPUT => [FC(46000)]*470 => FC"], "model", "Twice its weights are"),
    (["weights=bundle", "weights.path=photos"], "weights.path", "weights.safetensors"),
    (["transfer=small_similar", "weights=none"], "transfer.name", "no initial weights to transfer"),
    (["trainer=ddp", "train.batch_size=1"], "train.batch_size", "each of the 2 processes"),
    (["trainer=ddp", "transfer.frozen_fraction=0.5", "transfer.unfreeze_every=1"], "transfer.unfreeze_every", "null"),
    (["trainer.strategy=dpp"], "trainer", "dpp"),
    (["model=resnet18", "preprocess.image_size=8", "train.batch_size=1"], "train.batch_size", "2 or more for this net"),
    (["model=pattern", "model.pattern=INPUT => FC => BN => FC", "train.batch_size=1"], "train.batch_size", "2 or more"),
    (["model=alexnet"], "model", "model: alexnet paper: expected images of at least 67 px, got 32"),
    (["explain.explainer.target_layer=conv9"], "explain.explainer.target_layer", "Unknown layer 'conv9'"),
    (["source._target_=digits"], "source._target_", "expected a dotted name"),
    (["optimizer._target_=torch.optim.Adm"], "optimizer._target_", "Did you mean 'Adam'"),
]


@pytest.mark.parametrize(("overrides", "key", "message"), RELATED, ids=lambda value: str(value))
@pytest.mark.slow
def test_what_relates_sections_and_machine_is_looked_at(
    overrides: list[str], key: str, message: str, place: Path
) -> None:
    given = ["weights=file", "weights.path=weights.pth"] if any("transfer.frozen" in each for each in overrides) else []
    values = compose([*overrides, *given])
    with pytest.raises(SettingsFaults) as caught:
        check(values)
    (fault,) = caught.value.faults
    assert (fault.key, message in str(fault)) == (key, True), str(fault)


def test_pins_lie_where_dvc_watches_them(place: Path) -> None:
    """At preprocess.inputs, or in what is watched as the source."""
    check(compose(["preprocess.splits_csv=dvc.yaml", "preprocess.inputs=dvc.yaml"]))
    (place / "photos/splits.csv").touch()
    check(compose(["source=image_folder", "source.path=photos", "preprocess.splits_csv=photos/splits.csv"]))
    both = ["preprocess.splits_csv=dvc.yaml", "preprocess.inputs=dvc.yaml", "preprocess.folds=5", "preprocess.fold=0"]
    with pytest.raises(SettingsFaults, match=r"preprocess\.folds: got 5, expected null, because"):
        check(compose(both))


def test_what_else_is_wrong_in_a_section_hides_nothing(place: Path) -> None:
    folder = ["source=image_folder", "source.path=photos", "source.labels_csv=no.csv", "source.max_bad_fraction=2"]
    weights = ["weights=file", "weights.path=no.pth", "weights.sha256=x"]
    trainer = ["trainer.strategy=dpp", "trainer.num_workers=-1", "train.max_epochs=0"]
    wrong = {"source.labels_csv", "source.max_bad_fraction", "weights.path", "weights.sha256"}
    assert {fault.key for fault in told_of([*folder, *weights, *trainer])} == {
        *wrong,
        *("trainer", "trainer.num_workers", "train.max_epochs"),
    }


def numbers(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where numbers stand in a composition."""
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from numbers(value, (*path, key))
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield path


EXTREME = [
    *(math.inf, -math.inf, math.nan, -0.0, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 10**20, 10**400, -(10**400)),
    *(5e-324, 1e308, -1e308, 0.5, 1e15),
]


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_number_ends_the_check_in_a_traceback(data: st.DataObject, place: Path) -> None:
    values = with_numbers()
    *above, last = data.draw(st.sampled_from([*numbers(values)]))
    node = values
    for key in above:
        node = node[key]
    node[last] = data.draw(st.sampled_from(EXTREME) | st.integers() | st.floats())
    with suppress(SettingsFaults):
        check(values)


@cache
def _with_numbers() -> dict[str, Any]:
    return compose(["augment=light", "model=mlp", "preprocess.image_size=16"])


def with_numbers() -> dict[str, Any]:
    return deepcopy(_with_numbers())


def test_another_machine_may_have_other_devices_and_files(place: Path) -> None:
    values = compose(["trainer=gpu", "source=image_folder", "source.path=nowhere"])
    check(values, elsewhere=True)


def test_an_answer_is_remembered_until_something_it_depends_on_changes(place: Path) -> None:
    values = compose(["source=image_folder", "source.path=photos"])
    ensure_checked(values)
    (stamp,) = FOLDER.iterdir()
    ensure_checked(values)
    assert [*FOLDER.iterdir()] == [stamp]
    shutil.rmtree(place / "photos")
    with pytest.raises(SettingsFaults, match=r"source\.path"):
        ensure_checked(values)
    assert [*FOLDER.iterdir()] == [stamp]
    ensure_checked({**values, "source": compose()["source"]})
    assert len([*FOLDER.iterdir()]) == 2


def test_compose_refuses_and_writes_nothing(place: Path) -> None:
    (place / "params.yaml").write_text("seed: 5\n", "utf-8")
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    wrong = [
        "train.max_epochs=0",
        "evaluate.confidence_level=2",
        "preprocess.image_size=0",
        "optimizer.lr=-1",
        "+x.y=1",
    ]
    result = CliRunner().invoke(main, ["compose", *wrong])
    assert result.exit_code == 2
    for key in ("train.max_epochs", "evaluate.confidence_level", "preprocess.image_size", "optimizer.lr", "x.y"):
        assert f"  {key}: got " in result.stderr
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*") if path != place} == {
        path: time for path, time in before.items() if path != place
    }


def test_what_settings_md_shows_is_what_compose_prints(place: Path) -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    command, *shown = re.search(r"(?ms)^```\n\$ retinue (.*?)\n```", page)[1].splitlines()  # type: ignore[index]
    printed = CliRunner().invoke(main, command.split()).stderr.splitlines()
    assert len(printed) == len(shown) > 1
    for line, told in zip(printed, shown, strict=True):
        start, is_cut, _ = told.partition("…")
        assert line.startswith(start) if is_cut else line == start


@pytest.mark.parametrize("path", ["true", "1e3", "null", "''", "~nobodyx/a", "${nope}"])
@pytest.mark.slow
def test_a_key_is_told_of_once(path: str, place: Path) -> None:
    (fault,) = told_of(["source=image_folder", f"source.path={path}"])
    assert fault.key == "source.path"
    assert fault.value


def test_compose_has_written_when_dvc_cannot_say_what_will_run(place: Path) -> None:
    (place / "dvc.yaml").write_text("stages: [", "utf-8")
    result = CliRunner().invoke(main, ["compose", "seed=3"])
    assert result.exit_code == 0, result.output
    assert "warning: dvc cannot say what it will run: " in result.stderr
    assert "\nseed: 3\n" in (place / "params.yaml").read_text("utf-8")


def test_compose_writes_what_passes_and_remembers_it(place: Path) -> None:
    result = CliRunner().invoke(main, ["compose", "seed=3"])
    assert result.exit_code == 0, result.output
    assert "\nseed: 3\n" in (place / "params.yaml").read_text("utf-8")
    assert len([*(place / FOLDER).iterdir()]) == 1


@pytest.mark.slow
def test_a_stage_refuses_before_its_run_begins(project: Project) -> None:
    wrong = ["train.max_epochs=0", "evaluate.confidence_level=2", "augment.copies_per_image=-1"]
    result = project.run(sys.executable, "-m", "retinue.stages.acquire", *wrong, check=False)
    assert result.returncode == 2
    assert "error: stage acquire: 3 settings cannot be used:" in result.stderr
    assert all(f"  {each.split('=')[0]}: got " in result.stderr for each in wrong)
    assert not (project.path / ".cache").exists()
    assert project.run("git", "status", "--porcelain").stdout == ""
