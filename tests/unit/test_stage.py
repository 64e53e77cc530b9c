"""How a stage ends: explained errors become one line and a status, the unexplained keep their traceback."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from retinue.pipeline.artifacts import RawImage, Sample
from retinue.pipeline.ending import explained
from retinue.pipeline.errors import DataError, RetinueError, SettingsError
from retinue.pipeline.files import (
    iterate_table,
    read_json,
    read_table,
    remove_partial,
    replacing,
    write_json,
    write_table,
)
from retinue.pipeline.running import lock, refuse_while_running, remove_leftovers, running_stages
from retinue.pipeline.stage import is_first_process


@pytest.mark.parametrize(("error", "status"), [(DataError("bad"), 1), (SettingsError("bad"), 2)])
def test_an_explained_error_is_one_line(error: RetinueError, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info, explained("stage x"):
        raise error
    assert exit_info.value.code == status
    assert capsys.readouterr().err == "error: stage x: bad\n"


@pytest.mark.parametrize(
    ("number", "message"),
    [(errno.EROFS, "read-only"), (errno.ENOSPC, "no space left"), (errno.EACCES, "permission denied")],
)
def test_a_disk_error_is_explained(number: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info, explained("stage x"):
        raise OSError(number, os.strerror(number), "models/weights.safetensors")
    assert exit_info.value.code == 1
    assert "error: stage x: models/weights.safetensors: " in capsys.readouterr().err


def test_an_unexplained_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), explained("stage x"):
        _ = 1 / 0


def test_the_traceback_is_there_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_TRACEBACK", "1")
    with pytest.raises(DataError), explained("stage x"):
        raise DataError("bad")


@pytest.mark.parametrize(
    ("variables", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),  # torchrun
        ({"RANK": "4", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),  # what Lightning starts
        ({"NODE_RANK": "1"}, False),  # the first process of the second node
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        ({"SLURM_PROCID": "2", "SLURM_LOCALID": "0"}, False),
    ],
)
def test_the_first_process_is_known(variables: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(key, raising=False)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert is_first_process() is first


@pytest.mark.slow
def test_a_lock_is_held_once_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with lock("train"), pytest.raises(RetinueError, match=f"pid {os.getpid()}"), lock("train"):
        pass
    with lock("train"):
        pass


def test_an_error_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), explained("stage x"):
        raise DataError("c\x1b[2Jat\u202e:\n  bad")
    assert capsys.readouterr().err == "error: stage x: c\\x1b[2Jat\\u202e:\n  bad\n"


def test_who_runs_is_known_and_params_yaml_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refuse_while_running()
    with lock("train"):
        assert running_stages() == {"train": str(os.getpid())}
        with pytest.raises(RetinueError, match=rf"stage train \(pid {os.getpid()}\) is running in this checkout"):
            refuse_while_running()
    assert running_stages() == {}
    refuse_while_running()


def test_a_dvc_between_two_commands_is_at_work_and_a_killed_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = Path(".dvc/tmp/rwlock")
    record.parent.mkdir(parents=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for text in (
        "",
        "{",
        json.dumps({"read": {}}),
        json.dumps({"write": {"a": {"pid": ended.pid, "cmd": "dvc repro"}}}),
    ):
        record.write_text(text)
        refuse_while_running()
    record.write_text(json.dumps({"write": {"data/raw": {"pid": os.getpid(), "cmd": "dvc repro"}}}))
    with pytest.raises(RetinueError, match=rf"`dvc repro` \(pid {os.getpid()}\) is running"):
        refuse_while_running()


def test_a_half_written_folder_of_a_stage_that_runs_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data/augmented.partial", "models.partial", "report.partial"):
        Path(name).mkdir(parents=True)
    outs = {"augment": ["data/augmented"], "train": ["models"], "report": ["report"]}
    with lock("train"), lock("augment"):
        remove_leftovers("augment", outs)
    assert [path for path in ("data/augmented", "models", "report") if Path(f"{path}.partial").exists()] == ["models"]


def test_half_written_folders_are_removed_beside_what_stages_write(tmp_path: Path) -> None:
    for name in ("raw.partial", "processed.partial", "raw", "other.partial"):
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "models.partial").mkdir()
    remove_partial([str(tmp_path / "data/raw"), str(tmp_path / "data/processed/train"), str(tmp_path / "models")])
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["other.partial", "raw"]
    assert not (tmp_path / "models.partial").exists()


def test_a_replaced_folder_is_old_until_the_new_one_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "models"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(ZeroDivisionError), replacing(target) as folder:
        (folder / "new").touch()
        assert [p.name for p in target.iterdir()] == ["old"]
        _ = 1 / 0
    assert [p.name for p in target.iterdir()] == ["old"]
    with replacing(target) as folder:
        (folder / "new").touch()
    assert [p.name for p in target.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["models"]


ROWS = [
    RawImage('a,"b"/ü.jpg', "ants", "", "train", "0" * 64, 12, 3, 4, "RGB", "JPEG"),
    RawImage("two\nlines", "bees", "g", "", "1" * 64, 1, 1, 1, "I;16", "PNG"),
]


def test_a_table_reads_back_what_was_written(tmp_path: Path) -> None:
    write_table(tmp_path / "manifest.csv", RawImage, ROWS)
    assert read_table(tmp_path / "manifest.csv", RawImage) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image_id,label\na,1\n", "expected the columns image_id, label, group, unit"),
        ("image_id,label,group,unit\na,one,,0\n", "line 2: invalid literal"),
        ("image_id,label,group,unit\na,1\n", "line 2:"),
        ("", "expected the columns"),
    ],
)
def test_a_broken_table_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as error:
        list(iterate_table(path, Sample))
    assert str(path) in str(error.value)


def test_json_is_sorted_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"b": 1, "a": [0.1]})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": [\n    0.1\n  ],\n  "b": 1\n}\n'
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match=r"x\.json: not valid JSON"):
        read_json(tmp_path / "x.json")


def test_json_refuses_what_is_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
