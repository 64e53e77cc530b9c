"""Every recipe of conf/sweep describes a sweep that can be run."""

import re
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from project import ROOT, Project
from retinue.pipeline.errors import SettingsError, SettingsFaults
from retinue.sweeps.axes import points
from retinue.sweeps.command import PLUGINS, run
from retinue.sweeps.inputs import check_trials
from retinue.sweeps.study import Study, distributions
from retinue.sweeps.sweep import Sweep

RECIPES = sorted(path.stem for path in (ROOT / "conf" / "sweep").glob("*.yaml") if path.stem != "default")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Project.create(tmp_path_factory.mktemp("sweeps") / "project").path


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_composes_and_says_what_it_costs(
    recipe: str, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    with initialize_config_dir(str(checkout / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        overrides = [f"+sweep={recipe}", *PLUGINS]
        sweep = Sweep.of(hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN))
        check_trials(checkout, points(sweep.axes))
    assert sweep.name.startswith(recipe.replace("_", "-") + "-")
    assert Study(tmp_path, sweep.settings, sweep.axes).size > 1
    assert distributions(sweep.axes).keys() == set(sweep.axes.keys)
    header = re.findall(r"^# ?(.*)", (checkout / "conf" / "sweep" / f"{recipe}.yaml").read_text(), re.MULTILINE)
    assert f"Command: retinue sweep sweep={recipe}" in header
    assert any(line.startswith("Cost: ") for line in header)


@pytest.mark.slow
def test_values_and_bounds_that_no_trial_could_take_are_refused_together(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    axes = ["train.label_smoothing=interval(0.0,1.5)", "train.batch_size=8,0", "seed=0,-1", "report.gallery_columns=9"]
    overrides = ["+sweep=default", "sweep.search=random", "sweep.trials=2", *axes, *PLUGINS]
    with initialize_config_dir(str(checkout / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        sweep = Sweep.of(hydra.compose_config("config", overrides, run_mode=RunMode.MULTIRUN))
        with pytest.raises(SettingsFaults) as caught:
            check_trials(checkout, points(sweep.axes))
    assert sorted(map(str, caught.value.faults)) == [
        "report.gallery_columns: got 9, expected an integer in [1, 8].",
        "seed: got -1, expected an integer from 0 to 2^63 - 1.",
        "train.batch_size: got 0, expected an integer >= 1.",
        "train.label_smoothing: got 1.5, expected a number in [0, 1).",
    ]


@pytest.mark.parametrize(
    ("overrides", "keys"),
    [
        (
            ["sweep.workers=0", "sweep.search=x", "optimizer.lr=-1,0.2"],
            ["sweep.search", "sweep.workers", "optimizer.lr"],
        ),
        (["sweep.worker=1", "sweep.seed=1,2", "optimizer.lr=-1,0.2"], ["sweep.worker", "sweep.seed", "optimizer.lr"]),
        (["sweep.worker=1", "sweep.search=x", "sweep.name='a b'"], ["sweep.worker", "sweep.name", "sweep.search"]),
        (["sweep.retry=[3]", "optimizer.lr=0.1,0.2"], ["sweep.retry"]),
        (["sweep.cluster={executor: slurmm}", "optimizer.lr=0.1,0.2"], ["sweep.cluster"]),
        (["sweep.cluster={executor: local, foo: 3}", "optimizer.lr=0.1,0.2"], ["sweep.cluster"]),
        (["model=glob(*)"], ["model"]),
        (["optimizer.lr=range(0,0)"], ["optimizer.lr"]),
        (["train.batch_size=range(1,1000000000)"], ["train.batch_size"]),
        (["sweep.objective=[]", "optimizer.lr=0.1,0.2"], ["sweep.objective"]),
        (["hydra.launcher=null", "optimizer.lr=0.1,0.2"], ["hydra.launcher"]),
        (["optimizer.lr=interval(0.1,0.2)"], ["optimizer.lr"]),  # of a grid
    ],
)
@pytest.mark.slow
def test_what_is_wrong_with_the_sweep_is_told_with_its_trials_and_leaves_nothing(
    overrides: list[str], keys: list[str], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    with pytest.raises(SettingsError) as caught:
        run(overrides)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0].strip() for line in lines[len(keys) > 1 :]] == keys
    assert not (checkout / ".cache/sweeps").exists()
