"""Where settings come from: conf/ composed by Hydra, or params.yaml, which `retinue compose` writes.

Inside DVC a stage reads params.yaml and nothing else. By hand, a stage composes conf/ with the overrides of its
command line.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from retinue.pipeline.errors import SettingsError, unknown
from retinue.pipeline.settings import first_line


def project_root() -> Path:
    """The checkout this process works in: the nearest folder, upwards, with dvc.yaml and conf/.

    Raises:
        SettingsError: there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file() and (folder / "conf").is_dir():
            return folder
    raise SettingsError(f"{Path.cwd()}: not inside a project (no dvc.yaml and conf/ here or above). cd into one.")


def compose_to(target: Path, overrides: Sequence[str] = ()) -> None:
    """Writes the composition of conf/ with `overrides` to `target`, byte for byte as `dvc exp run` does.

    Raises:
        SettingsError: conf/ cannot be composed: unknown choice, unknown key, missing value.
    """
    from dvc.utils.hydra import compose_and_dump  # private, pinned with dvc: what `dvc exp run` itself calls
    from hydra.errors import HydraException

    root = project_root()
    try:
        compose_and_dump(target, str(root / "conf"), None, "config", str(root), [quoted(o) for o in overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingsError(explain(error, root / "conf", overrides)) from error


def quoted(override: str) -> str:
    """`override` as Hydra can read it: the arrows of a layer pattern are no part of its grammar unless quoted."""
    key, _, value = override.partition("=")
    if "=>" not in value or value[:1] in "'\"":
        return override
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'{key}="{escaped}"'


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The composition of conf/ with `overrides` as plain containers."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "params.yaml"
        compose_to(target, overrides)
        return load_params(target)


def load_params(path: Path | str = "params.yaml") -> dict[str, Any]:
    """The settings in a params.yaml as plain containers.

    Raises:
        SettingsError: the file is missing or is not a mapping.
    """
    try:
        values = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file. `retinue compose` writes it from conf/.") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected a mapping of sections, got {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}


def explain(error: Exception, conf: Path, overrides: Sequence[str]) -> str:
    """A Hydra or OmegaConf error as one sentence, with the near match for an unknown choice or key."""
    text = str(error)
    choice = re.search(r"Could not find '([\w-]+)/([^']+)'", text)
    if choice:
        group, name = choice.groups()
        return unknown(group, name, (p.stem for p in (conf / group).glob("*.yaml")))
    reference = re.search(r"Error trying to access ([\w.]+):|Interpolation key '([\w.]+)' not found", text)
    if reference:
        source = reference[1] or reference[2]
        group = source.split(".")[0]
        return f"A setting refers to {source}, which this choice of {group} does not have; see conf/{group}/."
    override = re.search(r"Could not override '([\w.]+)'", text)
    if override:
        choices = [text for text in overrides if (conf / text.partition("=")[0]).is_dir()]
        return f"{override[1]}: {_unknown_key(str(override[1]).split('.'), compose(choices))}"
    return first_line(error)


def _unknown_key(path: Sequence[str], node: Any) -> str:
    """The first part of `path` that `node` does not hold, with its near match."""
    for part in path:
        if not isinstance(node, dict) or part not in node:
            return unknown("key", part, map(str, node) if isinstance(node, dict) else ())
        node = node[part]
    raise AssertionError(f"{'.'.join(path)} is a key")
