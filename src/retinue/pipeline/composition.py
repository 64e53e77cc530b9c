"""Where settings come from: conf/ composed by Hydra, or params.yaml, which `retinue compose` writes.

A stage without overrides reads params.yaml and nothing else, inside DVC and by hand. With overrides of its command
line it composes conf/ anew.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError
from yaml.reader import ReaderError

from retinue.pipeline.documents import UNREADABLE_VALUES, check_yaml
from retinue.pipeline.errors import DataError, Fault, RetinueError, SettingsError, SettingsFaults
from retinue.pipeline.overrides import name_of, readable, value_of
from retinue.pipeline.settings import first_line
from retinue.pipeline.settings_tree import SettingsTree


def project_root() -> Path:
    """The checkout this process works in: the nearest folder, upwards, with dvc.yaml and conf/.

    Raises:
        SettingsError: there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "dvc.yaml").is_file() and (folder / "conf").is_dir():
            return folder
    raise SettingsError(f"{Path.cwd()}: not inside a project (no dvc.yaml and conf/ here or above). cd into one.")


class Composition(NamedTuple):
    """What conf/ and overrides make.

    Attributes:
        text: of a params.yaml, byte for byte as `dvc exp run` writes it; without the overrides that have a fault.
        faults: of the overrides, all of them.
    """

    text: str
    faults: list[Fault]

    @classmethod
    def create(cls, overrides: Sequence[str] = ()) -> "Composition":
        """Composes conf/ with those of `overrides` that can be used.

        Raises:
            SettingsError: conf/ does not compose without any override.
        """
        root = project_root()
        tree = SettingsTree(root / "conf")
        given, faults = list[str](), list[Fault]()
        for override in overrides:
            read = readable(override)
            wrong = read if isinstance(read, Fault) else tree.choice_fault(read)
            if wrong is not None:
                faults.append(wrong)
            else:
                given.append(str(read))
        while isinstance(text := _composed(root, given), Exception):
            for override, fault in _blamed(root, tree, given, text).items():
                given.remove(override)
                faults.append(fault)
        return cls(text, faults)

    def values(self) -> dict[str, Any]:
        """The sections as plain containers."""
        return _sections(OmegaConf.create(self.text), "conf/")


def compose_to(target: Path, overrides: Sequence[str] = ()) -> None:
    """Writes the composition of conf/ with `overrides` to `target`, byte for byte as `dvc exp run` does.

    Raises:
        SettingsFaults: overrides that cannot be used, all of them; `target` is not written.
        SettingsError: conf/ does not compose without any override.
    """
    text, faults = Composition.create(overrides)
    if faults:
        raise SettingsFaults(faults)
    target.write_text(text, "utf-8")


def compose(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The composition of conf/ with `overrides` as plain containers.

    Raises:
        SettingsFaults: overrides that cannot be used, all of them.
        SettingsError: conf/ does not compose without any override.
    """
    values, faults = compose_collecting(overrides)
    if faults:
        raise SettingsFaults(faults)
    return values


def compose_collecting(overrides: Sequence[str] = ()) -> tuple[dict[str, Any], list[Fault]]:
    """The composition of conf/ with those of `overrides` that can be used, and what is wrong with the others.

    Raises:
        SettingsError: conf/ does not compose without any override.
    """
    composition = Composition.create(overrides)
    return composition.values(), composition.faults


def stages_to_run(root: Path) -> tuple[list[str], list[str]]:
    """The stages that `dvc repro` would run in the checkout `root`, and those that it would not.

    A stage runs where its settings, its inputs or its code are not those it last ran with, where an output is not
    there, or where a stage before it runs. Files, of which there may be many, are looked at last.

    Raises:
        RetinueError: DVC cannot say.
    """
    from dvc.dependency.param import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo, lock_repo

    @cache
    def is_stale(stage: Any) -> bool:
        settings = [each for each in stage.deps if isinstance(each, ParamsDependency)]
        return (
            any(each.status() for each in settings)
            or any(is_stale(earlier) for earlier in repo.index.graph.successors(stage))
            or bool(stage.status())
        )

    try:
        with Repo(str(root)) as repo, lock_repo(repo):
            stages = [stage for stage in repo.index.stages if stage.cmd]
            stale = [stage.addressing for stage in stages if is_stale(stage)]
    except (DvcException, OSError) as error:
        raise RetinueError(first_line(error)) from error
    return stale, [stage.addressing for stage in stages if stage.addressing not in stale]


def _composed(root: Path, overrides: Sequence[str]) -> str | Exception:
    """The text of a params.yaml, or why there is none."""
    from dvc.utils.hydra import compose_and_dump  # private, pinned with dvc: what `dvc exp run` itself calls
    from hydra.errors import HydraException

    with TemporaryDirectory() as folder, _hydra_set_aside():
        target = Path(folder, "params.yaml")
        try:
            compose_and_dump(target, str(root / "conf"), None, "config", str(root), list(overrides))
        except (HydraException, OmegaConfBaseException) as error:
            return error
        return target.read_text("utf-8")


@contextmanager
def _hydra_set_aside() -> Iterator[None]:
    """A multirun of this process, of which Hydra allows one at a time, waits meanwhile."""
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = outer


def _blamed(root: Path, tree: SettingsTree, given: list[str], error: Exception) -> dict[str, Fault]:
    """Override -> its fault, of one or more of the overrides `given` that do not compose for `error`.

    Raises:
        SettingsError: conf/ does not compose without them, either.
    """
    choices = [each for each in given if tree.is_choice(each)]
    text = _composed(root, choices)
    if isinstance(text, Exception):
        return _culprit(root, choices, text)
    composed = _sections(OmegaConf.create(text), "conf/")
    found = {each: tree.key_fault(each, composed) for each in given if each not in choices}
    wrong = {each: fault for each, fault in found.items() if fault is not None}
    return wrong or _culprit(root, [*choices, *found], error)


def _culprit(root: Path, given: list[str], error: Exception) -> dict[str, Fault]:
    """The one of `given` without which the rest composes or fails otherwise; else the first that fails after others."""
    without = {each: _composed(root, [other for other in given if other != each]) for each in given}
    named = sorted(given, key=lambda each: name_of(each) not in str(error))
    suspects = [each for each in named if isinstance(without[each], str)]
    suspects += [each for each in named if str(without[each]) != str(error)]
    if not suspects:
        fails = (end for end in range(len(given) + 1) if isinstance(_composed(root, given[:end]), Exception))
        end = next(fails)
        if not end:
            raise SettingsError(f"{root / 'conf'}: it does not compose. {_reason(root, error)}")
        suspects = [given[end - 1]]
    override = suspects[0]
    fault = Fault(name_of(override), value_of(override), "a value that composes with the others", _reason(root, error))
    return {override: fault}


def _reason(root: Path, error: Exception) -> str:
    """An error of composing as one sentence."""
    found = re.search(r"Error trying to access ([\w.]+):|Interpolation key '([\w.]+)' not found", str(error))
    if not found:
        return first_line(error.__cause__ if isinstance(error.__cause__, Exception) else error)
    reference = found[1] or found[2]
    group = reference.split(".")[0]
    if not (root / "conf" / group).is_dir():
        return f"It refers to {reference}, which is no setting of conf/."
    return f"A setting refers to {reference}, which this choice of {group} does not have; see conf/{group}/."


_REWRITTEN = "`retinue compose` writes it anew from conf/."


def load_params(path: Path | str = "params.yaml") -> dict[str, Any]:
    """The settings in a params.yaml as plain containers.

    Raises:
        SettingsError: the file is missing, empty, no YAML or not a mapping, or refers to what it does not hold.
    """
    try:
        _check_bounds(Path(path))
        values = _sections(OmegaConf.load(path), str(path))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file. `retinue compose` writes it from conf/.") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not text in UTF-8. {_REWRITTEN}") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f"line {mark.line + 1}: "
        raise SettingsError(f"{path}: {place}{error.problem}. {_REWRITTEN}") from error
    except ReaderError as error:
        line = Path(path).read_text("utf-8").count("\n", 0, error.position) + 1
        raise SettingsError(f"{path}: line {line}: a character that YAML does not allow. {_REWRITTEN}") from error
    except OSError as error:
        if error.errno is not None:
            raise  # the others are OmegaConf's answer to a number
        raise SettingsError(f"{path}: expected a mapping of sections. {_REWRITTEN}") from error
    except (OmegaConfBaseException, *UNREADABLE_VALUES) as error:
        raise SettingsError(f"{path}: {first_line(error)}. {_REWRITTEN}") from error
    if not values:
        raise SettingsError(f"{path}: empty. {_REWRITTEN}")
    return values


def _check_bounds(path: Path) -> None:
    """Refuses a params.yaml that OmegaConf would not come to the end of; what else is wrong with it OmegaConf says."""
    with suppress(YAMLError):
        try:
            check_yaml(path.read_text("utf-8"), str(path))
        except DataError as error:
            raise SettingsError(f"{error} {_REWRITTEN}") from error


def _sections(node: Any, where: str) -> dict[str, Any]:
    values = OmegaConf.to_container(node, resolve=True)
    if not isinstance(values, dict):
        raise SettingsError(f"{where}: expected a mapping of sections, got {type(values).__name__}.")
    return {str(key): value for key, value in values.items()}
