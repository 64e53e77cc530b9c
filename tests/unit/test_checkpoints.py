"""A resume checkpoint that cannot be used says what to delete, and executes nothing."""

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from retinue.pipeline.errors import TrainingError
from retinue.training.checkpoints import BEST, LAST, discard, has_ended, load_checkpoint

WHOLE: dict[str, Any] = {
    "epoch": 2,
    "global_step": 30,
    "pytorch-lightning_version": "2.6.6",
    "state_dict": {"w": torch.zeros(2)},
    "loops": {},
    "callbacks": {"EarlyStopping{'monitor': 'val/log_loss'}": {"wait_count": 3}},
    "optimizer_states": [],
    "history": [],
    "lr_schedulers": [],
}


class Planted:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_whole_one_is_read(tmp_path: Path) -> None:
    torch.save(WHOLE, tmp_path / "last.ckpt")
    checkpoint = load_checkpoint(tmp_path / "last.ckpt")
    assert checkpoint["epoch"] == 2
    assert has_ended(checkpoint, 10, patience=3)
    assert not has_ended(checkpoint, 10, patience=4)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"<html></html>",
        b"PK\x03\x04" + bytes(60),
        pickle.dumps(os.system),
        pickle.dumps(WHOLE["loops"]),
    ],
    ids=["empty", "garbage", "html", "zip", "code", "pickle"],
)
def test_a_file_that_is_none_says_what_to_delete(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(content)
    with pytest.raises(
        TrainingError, match=rf"last\.ckpt: this resume checkpoint .*Delete {tmp_path} and run again"
    ) as e:
        load_checkpoint(tmp_path / "last.ckpt")
    assert "weights_only" not in str(e.value)


@pytest.mark.parametrize("key", WHOLE)
@pytest.mark.parametrize("value", [None, "text"])
def test_a_document_that_is_none_is_named(key: str, value: Any, tmp_path: Path) -> None:
    torch.save({**WHOLE, key: value if key != "pytorch-lightning_version" else 3}, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError, match=f"this resume checkpoint is none: it has no {key}"):
        load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), "text"], ids=["list", "tensor", "text"])
def test_another_document_is_named(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError, match=f"is none: a {type(content).__name__}"):
        load_checkpoint(tmp_path / "last.ckpt")


def test_code_in_one_is_not_executed(tmp_path: Path) -> None:
    torch.save({**WHOLE, "loops": Planted(tmp_path / "executed")}, tmp_path / "last.ckpt")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "executed").exists()


def test_what_a_deletion_leaves_is_not_resumed_from(tmp_path: Path) -> None:
    """The process is killed at its second deletion, whichever file that is."""
    for name in (BEST, LAST, "a", "z"):
        (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / name).touch()
    child = os.fork()
    if not child:
        deletions: list[str] = []

        def end(event: str, _: object) -> None:
            if event == "os.remove":
                deletions.append(event)
                if len(deletions) > 1:
                    os._exit(9)

        sys.addaudithook(end)
        discard(tmp_path / "run")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert {path.name for path in (tmp_path / "run").iterdir()} == {BEST, "a", "z"}


def test_a_missing_one_says_what_to_delete(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=rf"{BEST}: this resume checkpoint is missing. Delete {tmp_path}"):
        load_checkpoint(tmp_path / BEST)
