"""Reads the file of an offline W&B run (run-*.wandb) without a network and without W&B's own readers.

The file is a LevelDB log: after a 7-byte header, blocks of 32 KiB that hold fragments, each with its CRC (4 bytes),
length (2) and type (1: whole, 2: first, 3: middle, 4: last); a record is a W&B protobuf message. wandb 0.31 has no
public reader; its protobuf classes are what is used of it here.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK = 32768
_FRAGMENT = struct.Struct("<IHB")
_WHOLE, _FIRST, _LAST = 1, 2, 4


@dataclass
class Artifact:
    """An artifact as it was logged; `files` are the names of its files."""

    type: str
    name: str
    metadata: dict[str, Any]
    aliases: list[str]
    files: list[str]


@dataclass
class Run:
    """A run as its file has it.

    Attributes:
        step_metrics: pattern of metric names -> the metric they are drawn against.
        exit_code: None where the run did not end.
    """

    run_id: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: list[Artifact] = field(default_factory=list)
    step_metrics: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def read_run(path: Path) -> Run:
    """The run in the file at `path`, up to where the file was cut off."""
    run = Run()
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        _take(run, record)
    return run


def _records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B", "not the file of a W&B run"
    position, record = 7, b""
    while position + _FRAGMENT.size <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _FRAGMENT.size:
            position += left
            continue
        _, length, kind = _FRAGMENT.unpack_from(data, position)
        start = position + _FRAGMENT.size
        position = start + length
        if kind == 0 or position > len(data):
            return
        record = data[start:position] if kind in (_WHOLE, _FIRST) else record + data[start:position]
        if kind in (_WHOLE, _LAST):
            yield record


def _take(run: Run, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        opened = record.run
        run.run_id, run.project, run.group = opened.run_id, opened.project, opened.run_group
        run.job_type, run.name, run.tags = opened.job_type, opened.display_name, list(opened.tags)
        _update(run.config, opened.config.update)
    elif kind == "config":
        _update(run.config, record.config.update)
    elif kind == "history":
        run.history.append({})
        _update(run.history[-1], record.history.item)
    elif kind == "summary":
        _update(run.summary, record.summary.update)
    elif kind == "metric":
        metric = record.metric
        run.step_metrics[metric.name or metric.glob_name] = metric.step_metric
    elif kind == "artifact":
        run.artifacts.append(_artifact(record.artifact))
    elif kind == "exit":
        run.exit_code = record.exit.exit_code


def _update(target: dict[str, Any], items: Any) -> None:
    for item in items:
        *parents, key = [item.key] if item.key else item.nested_key
        node = target
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = json.loads(item.value_json)


def _artifact(logged: Any) -> Artifact:
    files = [entry.path for entry in logged.manifest.contents]
    return Artifact(logged.type, logged.name, json.loads(logged.metadata or "{}"), list(logged.aliases), sorted(files))
