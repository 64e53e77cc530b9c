"""Checks a whole composition before anything runs: all that can be known of the settings without the data.

Every section is loaded by the code that will use it, and what relates sections is looked at where they are right by
themselves. Networks are built without contents, optimizers for one parameter, policies for one image of noise.
"""

import importlib
import inspect
import os
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_origin, get_type_hints

import numpy as np
import torch

from retinue import stages
from retinue.bundle import build_sized
from retinue.engine.trainer import TrainerSettings, check_devices
from retinue.explainers.explainer import Explainer
from retinue.images.augmentation import Policy
from retinue.images.preprocess_settings import PreprocessSettings
from retinue.models.network import Network
from retinue.pipeline.artifacts import OUTS
from retinue.pipeline.errors import Fault, ModelError, SettingsError, SettingsFaults, nearest
from retinue.pipeline.files import FILE, FOLDER, NOTHING, kind_of
from retinue.pipeline.machine import memory_bytes
from retinue.pipeline.numbers import short
from retinue.pipeline.ranges import checked, fault_of, shown
from retinue.pipeline.settings import SEED, build, first_line, locate, strict
from retinue.pipeline.tracker import TrackingSettings
from retinue.sources.source import Source
from retinue.stages.augment import AugmentSettings
from retinue.stages.explain import ExplainSettings
from retinue.training.classifier import TrainSettings
from retinue.training.plan import batch_faults, transfer_faults, unfreezing_faults
from retinue.transfer.automatic import SCENARIOS, Auto
from retinue.transfer.scenario import Scenario
from retinue.transfer.weights import WeightsSettings


def _types_of_sections() -> dict[str, Any]:
    """Section -> the type that the plans of the stages give it; Mapping where none of them says more."""
    types = dict[str, Any]()
    for stage in sorted(module.name for module in pkgutil.iter_modules(stages.__path__)):
        plan = getattr(importlib.import_module(f"{stages.__name__}.{stage}"), f"{stage.title()}Plan")
        for section, kind in get_type_hints(plan).items():
            if get_origin(kind) is Mapping:
                types.setdefault(section, Mapping)
                continue
            known = types.get(section, Mapping)
            assert known in (Mapping, kind), f"{plan.__name__}.{section}: {kind}, and {known} in another plan"
            types[section] = kind
    return {**types, "tracking": TrackingSettings}


_TYPES = _types_of_sections()

SECTIONS = tuple(_TYPES)

SCHEMAS: Mapping[str, type[Any]] = {
    section: kind
    for section, kind in _TYPES.items()
    if isinstance(kind, type) and is_dataclass(kind) and not inspect.isabstract(kind)
}
"""Sections that are one dataclass, whatever is chosen."""

_NUM_CLASSES = 10  # what no composition says; no network cares
_NO_MATTER_OF_DEVICES = {"num_threads": None, "num_workers": 0, "train_workers": 0, "progress_bar": False}
_DESCRIPTIVE = ("_target_", "name", "module", "imagenet")


class Tried(NamedTuple):
    """What came of one part of the settings.

    Attributes:
        result: None where it cannot be used.
        faults: why; none otherwise.
    """

    result: Any
    faults: list[Fault]


def check(values: Mapping[str, Any], *, elsewhere: bool = False) -> None:
    """Refuses settings with which a stage could not run to its end.

    Args:
        values: the whole composition as plain containers.
        elsewhere: the stages will run on another machine: files and devices are not looked for on this one.

    Raises:
        SettingsFaults: with every fault of every section, in the order of the composition.
    """
    order = list(values)
    faults = list(dict.fromkeys(_all_faults(values, elsewhere)))
    if faults:
        faults.sort(key=lambda fault: order.index(section) if (section := _root(fault.key)) in order else -1)
        raise SettingsFaults(faults)


def _root(key: str) -> str:
    return key.partition(".")[0]


def _all_faults(values: Mapping[str, Any], elsewhere: bool) -> Iterator[Fault]:
    yield from _unknown_sections(values)
    parts = {name: _tried(name, values[name], _loader(name)) for name in SECTIONS if name in values and name != "seed"}
    if (seed := fault_of("seed", values.get("seed", 0), int, SEED)) is not None:
        yield seed
    for part in parts.values():
        yield from part.faults
    watched = [*_watched_paths(values, elsewhere)]
    yield from watched
    loaded = {name: part.result for name, part in parts.items() if not part.faults}
    if "model" in loaded:
        network = _sized(loaded["model"], values)
        loaded["network"] = network.result
        yield from network.faults
    checks: list[Callable[..., Iterator[Fault]]] = [
        _policy_draws,
        _candidates,
        transfer_faults,
        unfreezing_faults,
        _learning_rates,
        _schedule_moves,
        batch_faults,
        _target_layer,
    ]
    if not elsewhere:
        checks.append(_fits_memory)
        for on_this_machine in (_images_are_there, _pins_are_watched, _weights_are_there, _devices):
            found = on_this_machine(values)
            yield from (fault for fault in found if fault.key not in {each.key for each in watched})
    for relation in checks:
        names = list(inspect.signature(relation).parameters)
        if all(loaded.get(name) is not None for name in names):
            yield from relation(*(loaded[name] for name in names))


def _unknown_sections(values: Mapping[str, Any]) -> Iterator[Fault]:
    for name, value in values.items():
        if name not in SECTIONS:
            match = nearest(str(name), SECTIONS)
            hint = f"Did you mean {match}?" if match else ""
            yield Fault(str(name), shown(value), f"one of the sections {', '.join(sorted(SECTIONS))}", hint)
    for name in SECTIONS:
        if name not in values:
            yield Fault(name, "", "a section", "`retinue compose` writes all of them.")


def _loader(name: str) -> Callable[[Any], Any]:
    """Makes of the section `name` what the stages make of it."""
    special: dict[str, Callable[[Any], Any]] = {"augment": _policies, "explain": _explained, "optimizer": _optimizer}
    if name in special:
        return special[name]
    if name in SCHEMAS:
        return lambda section: strict(SCHEMAS[name], section, where=name)
    if name == "model":
        return _named_settings
    if name == "schedule":
        return _schedule
    if _TYPES[name] is Mapping:
        return lambda section: section
    return lambda section: build(section, where=name)


def _named_settings(model: Any) -> Mapping[str, Any]:
    """The section, which says what to build; that is tried once the size of the images is known."""
    if isinstance(model, Mapping) and "_target_" in model:
        return model
    return build(model, where="model")  # refuses it


def _optimizer(section: Any) -> torch.optim.Optimizer:
    return build(section, [torch.nn.Parameter(torch.zeros(1))], where="optimizer")


def _schedule(section: Any) -> Callable[[torch.optim.Optimizer], Any]:
    """What makes the schedule of an optimizer; tried with one that has all that a schedule may move."""

    def make(optimizer: torch.optim.Optimizer) -> Any:
        return build(section, optimizer, 100, where="schedule")

    make(_optimizer({"_target_": "torch.optim.AdamW", "lr": 0.1}))
    return make


def _schedule_moves(
    schedule: Callable[[torch.optim.Optimizer], Any], optimizer: torch.optim.Optimizer
) -> Iterator[Fault]:
    yield from _tried("schedule", optimizer, schedule).faults


def _sized(model: Mapping[str, Any], values: Mapping[str, Any]) -> Tried:
    """The network for the images that preprocess makes; where these cannot be told, its own arguments alone count."""
    usual = {"channels": 3, "image_size": 224, "batch_size": 2}
    known = dict[str, Any]()
    for name, keys in (("preprocess", ("channels", "image_size")), ("train", ("batch_size",))):
        if isinstance(values.get(name), Mapping):
            good, _ = checked(SCHEMAS[name], values[name], where=name)
            known.update({key: good[key] for key in keys if key in good})
    tried = _tried("model", model, lambda section: _network(section, **{**usual, **known}))
    if known.keys() == usual.keys():
        return tried
    return Tried(None, [fault for fault in tried.faults if fault.key != "model"])


def _network(model: Any, channels: int, image_size: int, batch_size: int) -> Network:
    """The network without contents, with which one training batch was tried."""
    with torch.device("meta"), torch.random.fork_rng(devices=[]), torch.no_grad():
        try:
            network = build_sized(model, channels, _NUM_CLASSES, image_size)
        except (RuntimeError, ArithmeticError) as error:  # of sizes beyond 64 bits
            raise SettingsError(f"model: these arguments make no network: {first_line(error)}") from error
        try:
            _try_batch(network, batch_size, channels, image_size)
        except (RuntimeError, ValueError) as error:
            if batch_size == 1 and _trains_on_two(network, channels, image_size):
                hint = "Batch norm finds no variance in one value."
                raise SettingsFaults([Fault("train.batch_size", "1", "2 or more for this network", hint)]) from error
            raise SettingsError(
                f"model: {type(network).__name__} cannot be trained on {batch_size} images of {image_size} px: {error} "
                "What decides: preprocess.image_size, train.batch_size."
            ) from error
    return network


def _try_batch(network: Network, batch_size: int, channels: int, image_size: int) -> None:
    network.train()(torch.empty(batch_size, channels, image_size, image_size))


def _trains_on_two(network: Network, channels: int, image_size: int) -> bool:
    try:
        _try_batch(network, 2, channels, image_size)
    except (RuntimeError, ValueError):
        return False
    return True


def _fits_memory(network: Network) -> Iterator[Fault]:
    """The weights are there twice at least: beside their gradients, and while the bundle is written."""
    needed = 2 * sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if needed > memory_bytes():
        expected = f"a network that fits into {short(memory_bytes(), 'B')} of memory"
        hint = f"Twice its weights are {short(needed, 'B')}. Lower its widths, or choose a smaller one."
        yield Fault("model", type(network).__name__, expected, hint)


def _tried(where: str, section: Any, make: Callable[[Any], Any]) -> Tried:
    """What `make` makes of `section`, or why it does not, for each setting that it refuses.

    A target refuses the first wrong argument it meets. That one is left out, and the rest is tried again.
    """
    faults = list[Fault]()
    while True:
        result, error = _attempt(section, make)
        if error is None:
            return Tried(None if faults else result, faults)
        found = _told(error, where)
        culprit = _blamed_setting(section, make, error) if {fault.key for fault in found} == {where} else None
        if culprit is not None:
            found = [Fault(f"{where}.{culprit}", shown(section[culprit]), "", fault.hint) for fault in found]
        faults += found
        named = {fault.key.removeprefix(f"{where}.").partition(".")[0] for fault in found}
        droppable = _optional(section) if isinstance(section, Mapping) else []
        if not named & set(droppable):
            return Tried(None, faults)
        section = {key: value for key, value in section.items() if key not in named or key not in droppable}


def _attempt(section: Any, make: Callable[[Any], Any]) -> tuple[Any, Exception | None]:
    try:
        return make(section), None
    except (SettingsError, ModelError) as error:
        return None, error


def _blamed_setting(section: Any, make: Callable[[Any], Any], error: Exception) -> str | None:
    """The argument without which the error is another one, or none."""
    for key in _optional(section) if isinstance(section, Mapping) else ():
        _, other = _attempt({name: value for name, value in section.items() if name != key}, make)
        if str(other) != str(error):
            return key
    return None


def _optional(section: Mapping[str, Any]) -> list[str]:
    """The arguments in `section` that its `_target_` has defaults for, or does not know."""
    try:
        target = locate(section.get("_target_", ""), where="")
        parameters = inspect.signature(target).parameters
    except (SettingsError, ValueError):  # ValueError: a builtin without a signature
        return []
    if is_dataclass(target):  # loaded strictly: all its faults are told at once
        return []
    return [
        key
        for key in section
        if key not in _DESCRIPTIVE and (key not in parameters or parameters[key].default is not inspect.Parameter.empty)
    ]


def _told(error: Exception, where: str) -> list[Fault]:
    """The faults that `error` tells of; one that is told in prose begins with its key."""
    if isinstance(error, SettingsFaults):
        return list(error.faults)
    text = str(error)
    start = re.match(rf"({re.escape(_root(where))}[\w.\[\]]*)(: |, | )", text)
    return [Fault(start[1], "", "", text[start.end() :]) if start else Fault(where, "", "", text)]


def _policies(section: Any) -> AugmentSettings:
    """The section, each of its transforms made once, whatever else is wrong."""
    augment, error = _attempt(section, lambda section: strict(AugmentSettings, section, where="augment"))
    transforms = section.get("transforms") if isinstance(section, Mapping) else None
    faults = [] if error is None else _told(error, "augment")
    if isinstance(transforms, (list, tuple)):
        faults += _of_each(transforms, lambda entry: Policy([entry], seed=0))
    if faults:
        raise SettingsFaults(faults)
    return augment


def _policy_draws(augment: AugmentSettings, preprocess: PreprocessSettings) -> Iterator[Fault]:
    shape = (preprocess.image_size, preprocess.image_size, preprocess.channels)
    noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    yield from _of_each(augment.transforms, lambda entry: Policy([entry], seed=0).check(noise))


def _of_each(transforms: Sequence[Any], make: Callable[[Any], Any]) -> list[Fault]:
    faults = list[Fault]()
    for index, entry in enumerate(transforms):
        _, error = _attempt(entry, make)
        where = f"augment.transforms[{index}]"  # alone, each is the first
        faults += [] if error is None else [fault._replace(key=where) for fault in _told(error, where)]
    return faults


def _watched_paths(values: Mapping[str, Any], elsewhere: bool) -> Iterator[Fault]:
    """Faults of the paths that DVC watches; whether those given as `path` are there their own sections know."""
    for name, section in values.items():
        path = section.get("inputs") if isinstance(section, Mapping) else None
        if not isinstance(path, str) or path == "???":
            continue
        key = f"{name}.path" if section.get("path") == path else f"{name}.inputs"
        if (out := _overlapping_out(path)) is not None:
            hint = f"A stage writes {out}, so it cannot be read from there as well: give a copy elsewhere."
            yield Fault(key, shown(path), "a path apart from what the stages write", hint)
        elif key == f"{name}.inputs" and not elsewhere and not (path and kind_of(Path(path)) in (FILE, FOLDER)):
            yield Fault(key, shown(path), "a path that exists", "DVC watches it for changes; check the spelling.")


def _overlapping_out(path: str) -> Path | None:
    """The output of a stage that `path` is, holds or lies in, as it is written or behind links; None: there is none."""
    if not path or kind_of(Path(path)) not in (FILE, FOLDER, NOTHING):  # a link to itself, or no path at all
        return None
    for out in OUTS:
        for place in (_normal, Path.resolve):  # DVC looks at the one, a stage writes to the other
            given, written = place(Path(path)), place(out)
            if given.is_relative_to(written) or written.is_relative_to(given):
                return out
    return None


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _good(schema: type[Any], values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Those settings of a section that can be used, whatever the others."""
    section = values.get(name)
    return checked(schema, section, where=name)[0] if isinstance(section, Mapping) else {}


def _images_are_there(values: Mapping[str, Any]) -> Iterator[Fault]:
    section = values.get("source")
    target = section.get("_target_", "") if isinstance(section, Mapping) else ""
    source, _ = _attempt(target, lambda target: locate(target, where="source"))
    if isinstance(source, type) and issubclass(source, Source):
        yield from source.missing(_good(source, values, "source"))


def _pins_are_watched(values: Mapping[str, Any]) -> Iterator[Fault]:
    """The CSV of pins is a file, and DVC watches it."""
    good, key = _good(PreprocessSettings, values, "preprocess"), "preprocess.splits_csv"
    path = good.get("splits_csv")
    if path is None:
        return
    if (kind := kind_of(Path(path))) != FILE:
        yield Fault(key, shown(path), "a CSV with the columns image_id,split", f"{path}: {kind}.")
        return
    source = values.get("source")
    watched = [good.get("inputs"), source.get("inputs") if isinstance(source, Mapping) else None]
    if not any(isinstance(each, str) and _normal(Path(path)).is_relative_to(_normal(Path(each))) for each in watched):
        hint = f"A change in it would go unnoticed: give preprocess.inputs={path} as well."
        yield Fault("preprocess.inputs", shown(good.get("inputs")), f"{path}, for DVC to watch it", hint)


def _weights_are_there(values: Mapping[str, Any]) -> Iterator[Fault]:
    path = _good(WeightsSettings, values, "weights").get("path")
    if path is not None:
        weights = WeightsSettings(name="file", path=path, url=None, sha256=None, inputs=path)
        _, error = _attempt(weights, WeightsSettings.file)
        if error is not None:
            yield Fault("weights.path", shown(path), "a file of weights or a model bundle", str(error))


def _candidates(transfer: Scenario | Auto) -> Iterator[Fault]:
    if isinstance(transfer, Auto):
        for name in SCENARIOS:
            yield from _tried(f"transfer.candidates.{name}", name, transfer.scenario).faults


def _learning_rates(transfer: Scenario | Auto, optimizer: torch.optim.Optimizer) -> Iterator[Fault]:
    if transfer.transfers and "lr" not in optimizer.defaults:
        yield Fault("optimizer._target_", type(optimizer).__name__, "an optimizer with lr, which transfer multiplies")


def _explained(section: Any) -> Explainer:
    """The explainer, the rest of the section checked."""
    _, error = _attempt(section, lambda section: strict(ExplainSettings, section, where="explain"))
    faults = [] if error is None else _told(error, "explain")
    where = "explain.explainer"
    explainer = section.get("explainer") if isinstance(section, Mapping) else None
    made = _tried(where, explainer, lambda section: build(section, where=where))
    faults += made.faults if isinstance(explainer, Mapping) else []
    if faults:
        raise SettingsFaults(faults)
    return made.result


def _target_layer(explain: Explainer, network: Network) -> Iterator[Fault]:
    yield from _tried("explain.explainer", explain, lambda explainer: explainer.check(network)).faults


def _devices(values: Mapping[str, Any]) -> Iterator[Fault]:
    good = {**_good(TrainerSettings, values, "trainer"), **_NO_MATTER_OF_DEVICES}
    precision = _good(TrainSettings, values, "train").get("precision")
    if precision is not None and good.keys() == {entry.name for entry in fields(TrainerSettings)}:
        trainer = TrainerSettings(**good)
        _, error = _attempt(trainer, lambda settings: check_devices(settings, precision=precision))
        yield from [] if error is None else _told(error, "trainer")
