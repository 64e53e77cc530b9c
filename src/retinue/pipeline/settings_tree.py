"""Which settings conf/ knows, over all its choices, so that a slip is told with what was meant."""

import difflib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from retinue.pipeline.errors import Fault, unknown
from retinue.pipeline.overrides import name_of, parsed, value_of


class SettingsTree:
    """The groups of conf/ and the keys of all their choices.

    Args:
        conf: the folder.
    """

    def __init__(self, conf: Path):
        self._conf = conf
        self._root = _mapping(conf / "config.yaml")
        defaults = [each for each in self._root.pop("defaults", []) if isinstance(each, dict)]
        self._groups = {str(group): choice for each in defaults for group, choice in each.items()}

    def is_choice(self, override: str) -> bool:
        """Whether `override` chooses a file of a group."""
        return name_of(override) in self._groups

    def choice_fault(self, override: str) -> Fault | None:
        """What is wrong with `override` as far as no composition is needed to see it; None: nothing."""
        key, _, value = override.partition("=")
        name, shown = name_of(override), value_of(override)
        section = name.split(".")[0]
        if override.startswith("~") or section == "hydra" or section.startswith("hydra/"):
            return None
        if name in self._groups:
            return self._wrong_choice(key, name, value)
        if (self._conf / name).is_dir() and name:
            hint = f"`retinue sweep {name}={value}` does." if name == "sweep" else f"Groups: {', '.join(self._groups)}."
            return Fault(name, value, "a group that params.yaml takes", hint)
        if section not in self._groups and section not in self._root:
            return Fault(name, shown, "a setting or a group of conf/", self.nearest(name))
        return None

    def key_fault(self, override: str, composed: Mapping[str, Any]) -> Fault | None:
        """What is wrong with the key of `override` beside the choices that `composed` is made of; None: nothing."""
        key = override.partition("=")[0]
        name, value = name_of(override), value_of(override)
        exists = _holds(composed, name)
        if key.startswith("++") or (key.startswith("+") and not exists) or name.split(".")[0] == "hydra":
            return None
        if key.startswith("+"):
            return Fault(name, value, "a new key after a +", f"This one exists: {name}={value} sets it.")
        if exists:
            return None
        section, _, rest = name.partition(".")
        others = [choice for choice, keys in self._keys.items() if choice.startswith(f"{section}=") and name in keys]
        if others and section in self._groups:
            own = composed.get(section)
            chosen = own.get("name", "another choice") if isinstance(own, Mapping) else "another choice"
            listed = " or ".join(others[:3])
            hint = f"{section}={chosen} has no {rest}; add {listed}."
            return Fault(name, value, f"a setting of {section}={chosen}", hint)
        return Fault(name, value, "a setting of conf/", self.nearest(name, composed))

    def nearest(self, name: str, composed: Mapping[str, Any] | None = None) -> str:
        """A sentence that names the settings which `name` may stand for.

        Args:
            name: a key, in full (train.max_epoch) or its last part alone (lr).
            composed: whose keys come before those of choices that are not made.
        """
        known = [*(_leaves(composed) if composed else ()), *self._root]
        every = list(dict.fromkeys([*known, *(key for keys in self._keys.values() for key in keys), *self._groups]))
        said = f"Unknown key {name!r}."
        last = name.rpartition(".")[2]
        same = [key for key in every if key.rpartition(".")[2] == last]
        if same and "." not in name:
            return f"{said} Did you mean {_listed(same)}?"
        if close := difflib.get_close_matches(name, every, n=1, cutoff=0.75) or same[:1]:
            return f"{said} Did you mean {close[0]!r}?"
        lasts = difflib.get_close_matches(last, {key.rpartition(".")[2] for key in every}, n=1, cutoff=0.6)
        if lasts:
            return f"{said} Did you mean {_listed([k for k in every if k.rpartition('.')[2] == lasts[0]])}?"
        section = name.split(".")[0]
        inside = [key for key in every if key.startswith(f"{section}.")]
        return f"{said} Available: {', '.join(inside or self._groups)}."

    def _wrong_choice(self, key: str, name: str, value: str) -> Fault | None:
        if key.startswith("+"):
            return Fault(name, value, "a choice without a +", f"Every group is there already: {name}={value}.")
        read = parsed(f"{name}={value}")
        shown = value_of(f"{name}={value}")
        chosen = read.value() if read else value
        if chosen is None and self._groups[name] is None:
            return None
        available = sorted(path.stem for path in (self._conf / name).glob("*.yaml"))
        for each in chosen if isinstance(chosen, list) else [chosen]:
            if not isinstance(each, str) or each not in available:
                text = each if isinstance(each, str) else shown
                return Fault(name, shown, f"a file of conf/{name}/", unknown(name, text, available))
        return None

    @cached_property
    def _keys(self) -> dict[str, list[str]]:
        """group=choice -> the keys it has."""
        found = {}
        for path in sorted(self._conf.glob("*/*.yaml")):
            group = path.parent.name
            values = _mapping(path)
            values.pop("defaults", None)
            if group not in self._groups:
                continue
            whole = path.read_text("utf-8").startswith("# @package _global_")
            found[f"{group}={path.stem}"] = list(_leaves(values if whole else {group: values}))
        return found


def _mapping(path: Path) -> dict[str, Any]:
    values = yaml.load(path.read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # in C: 90 files
    assert isinstance(values, dict), f"{path} is no mapping"
    return {str(key): value for key, value in values.items()}


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"


def _holds(node: Any, name: str) -> bool:
    for part in name.split("."):
        if isinstance(node, list) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, Mapping) and part in node:
            node = node[part]
        else:
            return False
    return True


def _listed(keys: list[str]) -> str:
    shown = [repr(key) for key in dict.fromkeys(keys)]
    return " or ".join(shown[:4])
