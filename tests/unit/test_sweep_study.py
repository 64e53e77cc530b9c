"""The study asks for each trial once, whatever is killed when."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from scipy import stats

from retinue.pipeline.errors import DataError
from retinue.pipeline.files import write_json
from retinue.sweeps.axes import Axes, parse
from retinue.sweeps.job import JobOutcome, read_outcome
from retinue.sweeps.study import MAX_ATTEMPTS, Study
from retinue.sweeps.table import interval_of_mean, pareto
from sweeps import settings

AXES = parse({}, ["model=a,b", "optimizer.lr=0.1,0.2,0.3"])
DRAWN = parse({}, ["model=a,b", "optimizer.lr=tag(log,interval(0.001,0.1))"])


def study(folder: Path, axes: Axes = AXES, **changes: Any) -> Study:
    return Study(folder, settings(**changes), axes)


def run(own: Study, count: int) -> list[tuple[str, ...]]:
    """Runs `count` trials with an objective that the last axis decides; their overrides."""
    done = []
    for _ in range(count):
        trial = own.ask()
        assert trial is not None
        done.append(tuple(own.overrides(trial)))
        own.complete(trial, [float(own.overrides(trial)[-1].partition("=")[2])])
    return done


@pytest.mark.slow
def test_a_grid_is_run_in_order_and_once(tmp_path: Path) -> None:
    own = study(tmp_path)
    assert run(own, 6) == [(f"model={m}", f"optimizer.lr={lr}") for m in "ab" for lr in ("0.1", "0.2", "0.3")]
    assert own.ask() is None
    assert study(tmp_path).ask() is None


@pytest.mark.slow
def test_what_was_running_when_killed_is_asked_for_again(tmp_path: Path) -> None:
    own = study(tmp_path)
    first = run(own, 2)
    own.ask(), own.ask()  # two that never end
    rest = run(study(tmp_path), 4)
    assert sorted(first + rest) == sorted({*first, *rest})
    assert len({*first, *rest}) == 6


@pytest.mark.parametrize(
    "search", [pytest.param("random", marks=pytest.mark.slow), "tpe", pytest.param("nsga2", marks=pytest.mark.slow)]
)
@pytest.mark.slow
def test_a_search_that_is_taken_up_draws_what_it_would_have_drawn(tmp_path: Path, search: str) -> None:
    whole = run(study(tmp_path, DRAWN, search=search, trials=10), 10)
    for killed_at in (1, 5, 9):
        folder = tmp_path / f"killed at {killed_at}"
        folder.mkdir()
        own = study(folder, DRAWN, search=search, trials=10)
        begun = run(own, killed_at)
        own.ask()
        resumed = study(folder, DRAWN, search=search, trials=10)
        assert begun + run(resumed, 10 - killed_at) == whole
        assert resumed.ask() is None


def test_more_trials_go_on_where_fewer_ended(tmp_path: Path) -> None:
    run(study(tmp_path, DRAWN, search="random", trials=3), 3)
    more = study(tmp_path, DRAWN, search="random", trials=5)
    run(more, 2)
    assert more.ask() is None
    assert [trial.number for trial in more.trials()] == [0, 1, 2, 3, 4]


def test_a_trial_that_is_killed_again_and_again_fails(tmp_path: Path) -> None:
    own = study(tmp_path)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        trial = own.ask()
        assert trial is not None
        assert trial.number == 0
        assert own.interrupted(trial, "killed") == (attempt < MAX_ATTEMPTS)
    assert own.trials()[0].state == TrialState.FAIL


def test_a_failed_trial_is_retried_alone_with_its_settings(tmp_path: Path) -> None:
    own = study(tmp_path)
    run(own, 5)
    last = own.ask()
    assert last is not None
    own.failed(last, "of its own error")
    assert own.ask() is None
    own.retry([last.number])
    again = own.ask()
    assert again is not None
    assert own.overrides(again) == own.overrides(last)
    own.complete(again, [1.0])
    assert own.ask() is None


def test_a_trial_that_falls_behind_is_pruned(tmp_path: Path) -> None:
    own = study(tmp_path, prune="median")
    for _ in range(4):
        trial = own.ask()
        assert trial is not None
        assert not own.should_prune(trial, {epoch: 1.0 / (epoch + 1) for epoch in range(1, 6)})
        own.complete(trial, [0.2])
    behind, ahead = own.ask(), own.ask()
    assert behind is not None
    assert ahead is not None
    assert own.should_prune(behind, dict.fromkeys(range(1, 6), 5.0))
    assert not own.should_prune(ahead, {epoch: 0.1 / (epoch + 1) for epoch in range(1, 6)})


def test_a_fitted_head_counts_with_the_first_epoch(tmp_path: Path) -> None:
    own = study(tmp_path, prune="median")
    trial = own.ask()
    assert trial is not None
    own.should_prune(trial, {0: 0.01, 1: 5.0, 2: 4.0})
    assert own.trials()[trial.number].intermediate_values == {0: 0.01, 1: 4.0}


def test_several_objectives_make_a_front(tmp_path: Path) -> None:
    own = study(tmp_path, DRAWN, search="nsga2", trials=3, objective=["val/auc_score", "parameters"])
    for values in ([0.9, 10.0], [0.8, 5.0], [0.7, 20.0]):
        trial = own.ask()
        assert trial is not None
        own.complete(trial, values)
    assert own.ask() is None
    costs = [[-trial.values[0], trial.values[1]] for trial in own.trials()]
    assert pareto(costs) == {0, 1}


@given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=9, unique=True))
def test_the_interval_is_that_of_scipy(values: list[int]) -> None:
    low, high = stats.t.interval(0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values))
    assert interval_of_mean(values) == pytest.approx((low, high), rel=1e-9, abs=1e-9)


def test_one_value_has_no_interval() -> None:
    assert interval_of_mean([1.0]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    front = pareto([list(map(float, point)) for point in points])
    for index, point in enumerate(points):
        beaten = any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)
        assert (index in front) != beaten


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a study called mine, with two trials that have ended."""
    folder = tmp_path_factory.mktemp("whole") / "mine"
    folder.mkdir()
    run(study(folder), 2)
    return (folder / "study.db").read_bytes()


def changed(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            for statement in statements:
                database.execute(statement)
            database.commit()

    return change


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"garbage" * 1000),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(path.read_bytes().replace(b"TABLE trials", b"TABLE \xff\xff\xff\xff\xff\xff")),
        changed("update alembic_version set version_num = 'v0.9.0.a'"),
        changed("update trial_params set distribution_json = '{'"),
        changed("update trial_params set param_value = 99"),
        changed("update trial_params set param_name = 'hydra.run.dir' where param_name = 'model'"),
        changed("update trial_system_attributes set value_json = '[[['"),
        changed("""update trial_system_attributes set value_json = '{"model": "os.system"}'"""),
        changed("update trials set state = 'ENDED'"),
    ],
    ids=["garbage", "cut", "not UTF-8", "older", "JSON", "value", "key", "attribute", "choice", "state"],
)
@pytest.mark.slow
def test_a_damaged_study_is_a_message(damage: Callable[[Path], None], whole: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/study.db").write_bytes(whole)
    damage(tmp_path / "mine/study.db")
    with pytest.raises(DataError, match=r"study\.db: the study of this sweep cannot be read .*Delete it, and the same"):
        study(tmp_path / "mine")


def test_a_study_anew_asks_again_from_the_first(whole: bytes, tmp_path: Path) -> None:
    """As the message says; what has run already is not run again, for its result is there."""
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine/study.db"
    path.write_bytes(whole)
    assert study(path.parent).ask().number == 2  # type: ignore[union-attr]
    path.unlink()
    assert study(path.parent).ask().number == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"state": "complete"}', '{"state": 1}', "[" * 100_000])
def test_a_damaged_result_of_a_trial_is_a_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError, match=r"result\.json: .*Delete it, and the same command runs this experiment again"):
        read_outcome(tmp_path)


def test_a_result_of_a_trial_comes_back(tmp_path: Path) -> None:
    outcome = JobOutcome("complete", "", "0" * 40, 1.5, {"val/log_loss": 0.25})
    write_json(tmp_path / "result.json", outcome._asdict())
    assert read_outcome(tmp_path) == outcome
