"""What there is to choose from in conf/, and what each choice composes to."""

from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
MISSING = "???"
"""A setting without default, as params.yaml has it."""

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())


def choices_of(group: str) -> list[str]:
    """Names of the files in conf/<group>/."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def document(group: str, choice: str) -> dict[str, Any]:
    """conf/<group>/<choice>.yaml as it stands, interpolations included."""
    return yaml.safe_load((CONF / group / f"{choice}.yaml").read_text("utf-8")) or {}


def overrides_of(group: str, choice: str) -> tuple[str, ...]:
    """The overrides that compose a choice: itself, and what it needs beside it."""
    published = next(name for name in choices_of("model") if document("model", name).get("imagenet"))
    beside = {"weights": (f"model={published}",), "transfer": ("weights=none",)}.get(group, ())
    return (f"{group}={choice}", *beside)
