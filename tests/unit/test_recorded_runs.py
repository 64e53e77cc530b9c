"""What a W&B run says of where it comes from may have been changed by whoever may write to its project."""

import json
from typing import Any

import pytest

from retinue.lineage import find as module
from retinue.lineage.find import find
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.settings import fingerprint_of
from retinue.tracking.runs import RecordedRun

SETTINGS = {"seed": 0, "model": {"name": "mlp"}, "tracking": {"mode": "offline"}}
GROUP = fingerprint_of(SETTINGS)
COMMIT = "0123456789" * 4
MD5 = "1a" * 16


def run(**lineage: Any) -> RecordedRun:
    own = {"settings": json.dumps(SETTINGS), "git_revision": COMMIT, "git_dirty": False, "deps": {"photos": MD5}}
    config = {"lineage": {**own, **lineage}}
    summary = {"outs": {"models": MD5}, "test/auc_score": 0.9}
    return RecordedRun("abc", "evaluate", GROUP, "finished", "wandb/run-1-abc", None, False, config, summary)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Any:
    def record(each: RecordedRun) -> None:
        monkeypatch.setattr(module, "all_experiments", list)
        monkeypatch.setattr(module, "local_run", lambda _: each)
        monkeypatch.setattr(module, "local_runs", lambda _: [each])

    return record


def test_a_run_of_a_stage_is_read(recorded: Any) -> None:
    recorded(run())
    found = find("abc")
    assert (found.commit, found.settings, found.hashes) == (COMMIT, SETTINGS, {"photos": MD5, "models": MD5})
    assert found.metrics == {"auc_score": 0.9}


@pytest.mark.parametrize(
    ("lineage", "message"),
    [
        ({"git_revision": "--output=/tmp/x"}, "did not record its settings and its git revision"),
        ({"git_revision": 7}, "did not record its settings and its git revision"),
        ({"git_revision": COMMIT + "\n"}, "did not record its settings and its git revision"),
        ({"settings": "{"}, r"config\.lineage\.settings: not valid JSON"),
        ({"settings": "[" * 100_000}, "nested more than 64 levels deep"),
        ({"settings": None}, "got null|not valid JSON"),
        ({"settings": "[1]"}, r"config\.lineage\.settings: got \[1\], expected a mapping"),
        ({"settings": json.dumps({**SETTINGS, "model": {"name": "other"}})}, "have another fingerprint than the run's"),
        ({"deps": [1]}, r"config\.lineage\.deps: got \[1\], expected a mapping"),
        ({"deps": {"photos": 1}}, r"config\.lineage\.deps\.photos: got 1, expected text"),
    ],
)
def test_a_run_that_was_changed_is_a_message(lineage: dict[str, Any], message: str, recorded: Any) -> None:
    recorded(run(**lineage))
    with pytest.raises(RetinueError, match=message) as caught:
        find("abc")
    assert str(caught.value).startswith("wandb/run-1-abc: ")


@pytest.mark.parametrize("config", [{}, {"lineage": None}, {"lineage": "text"}, {"lineage": [1]}])
def test_a_run_of_another_program_is_a_message(config: dict[str, Any], recorded: Any) -> None:
    recorded(run()._replace(config=config))
    with pytest.raises(RetinueError, match="was not made by a stage of this project"):
        find("abc")
