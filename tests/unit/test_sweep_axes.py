"""What a sweep varies, and what conf/sweep may say."""

from typing import Any

import pytest

from retinue.pipeline.errors import SettingsError
from retinue.sweeps.axes import SearchInterval, parse
from sweeps import settings


def test_what_varies_is_told_from_what_does_not() -> None:
    axes = parse({}, ["model=lenet5,resnet18", "tracking=off", "optimizer.lr=tag(log,interval(0.001,0.1))", "seed=0,1"])
    assert axes.choices == {"model": ["lenet5", "resnet18"]}
    assert axes.intervals == {"optimizer.lr": SearchInterval(0.001, 0.1, log=True, integer=False)}
    assert axes.fixed == ["tracking=off"]
    assert axes.seeds == ["0", "1"]


def test_the_command_line_has_the_last_word_over_the_recipe() -> None:
    axes = parse({"model": "lenet5,resnet18", "optimizer.lr": "0.1,0.2"}, ["model=mlp", "sweep.workers=2", "+sweep=x"])
    assert axes.fixed == ["model=mlp"]
    assert axes.choices == {"optimizer.lr": ["0.1", "0.2"]}


def test_a_grid_has_every_combination_the_last_axis_fastest() -> None:
    points = parse({}, ["model=a,b", "train.batch_size=range(1,4)"]).grid()
    assert [tuple(point.values()) for point in points] == [
        *(("a", "1"), ("a", "2"), ("a", "3")),
        *(("b", "1"), ("b", "2"), ("b", "3")),
    ]


def test_a_quoted_comma_does_not_vary() -> None:
    assert parse({}, ['model.pattern="A, B"', "seed=0,1"]).fixed == ['model.pattern="A, B"']


def test_whole_numbers_stay_whole() -> None:
    interval = parse({}, ["train.batch_size=int(interval(8,64))"]).intervals["train.batch_size"]
    assert interval == SearchInterval(8, 64, log=False, integer=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=lenet5"], "Nothing varies"),
        (["optimizer.lr=0.1,0.1"], "a value is given twice"),
        (["optimizer.lr=interval(0.2,0.1)"], r"expected interval\(low, high\)"),
        (["optimizer.lr=tag(log,interval(0,1))"], "begins above 0"),
        (["optimizer.lr=a b,(c"], "optimizer.lr"),
        (["model=glob(*)"], r"model: got model=glob\(\*\), expected the values, with commas"),
        (["seed=0,1", "optimizer.lr=glob([a*], exclude=b)"], r"optimizer.lr: got .*glob.*, expected the values"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parse({}, arguments)


def test_a_grid_needs_lists() -> None:
    with pytest.raises(SettingsError, match=r"optimizer\.lr: a grid needs a list of values"):
        parse({}, ["optimizer.lr=interval(0.1,0.2)"]).grid()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search": "tep", "trials": 3}, "Did you mean 'tpe'"),
        ({"search": "tpe"}, "sweep.trials"),
        ({"workers": 0}, "sweep.workers: got 0, expected an integer >= 1"),
        ({"max_failure_rate": 1.5}, "sweep.max_failure_rate"),
        ({"objective": "test/auc_score"}, "expected a metric of the validation split.*val/auc_score"),
        ({"objective": ["val/log_loss", "test/log_loss"]}, "expected a metric of the validation split"),
        ({"objective": "val/acuracy_score"}, "Did you mean 'val/accuracy_score'"),
        ({"prune": "median", "objective": ["val/log_loss", "parameters"]}, "several objectives"),
        ({"prune": "median", "objective": "parameters"}, "does not change while training"),
        ({"prune": "medain"}, "Did you mean 'median'"),
        ({"cluster": {"partition": "gpu"}}, "expected an executor"),
        ({"name": "a name"}, "letters, digits and hyphens"),
        ({"retry": "some"}, "got 'some', expected all, null or numbers"),
    ],
)
def test_settings_that_make_no_sweep_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings(**changes)


def test_scores_go_up_and_all_else_goes_down() -> None:
    own = settings(objective=["val/auc_score", "val/log_loss", "multiply_adds"])
    assert own.directions == ["maximize", "minimize", "minimize"]
