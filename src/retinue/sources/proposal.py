"""`retinue init`: an experiment for a folder, proposed from a first look at it."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from retinue.pipeline.composition import Composition, project_root
from retinue.pipeline.errors import DataError, SettingsError, SettingsFaults
from retinue.pipeline.names import escaped
from retinue.pipeline.numbers import figure, percent
from retinue.sources.first_look import FirstLook, look_at

_SIDES = (224, 192, 160, 128, 96, 64, 32)  # px; networks halve them several times
_SMALL = 64  # px: below, weights of photographs do not help, and a small network does
_UNBALANCED = 10  # images of the largest class for one of the smallest
_NAME = r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z]\w*"
"""Of experiments; what begins with a digit, and these words, Hydra may take for no text."""
_FITTED_FIRST = ("  fit_head: true", "  max_epochs: 8", "  patience: 4")
_SLOW_REST = ("transfer:", "  block_decay: 0.8", "", "optimizer:", "  lr: 0.0003 # the head begins at its optimum")
"""What conf/experiment/photographs.yaml has."""
_SIDED = re.compile(r"\b(left|right|up|down|clockwise|[a-z0-9])\b", re.IGNORECASE)


class _Choices(NamedTuple):
    """The choices of conf/ that fit, each with the reason; `fits_head`: trained as experiment=photographs is."""

    preprocess: str
    augment: str
    model: str
    transfer: str
    fit: str
    fits_head: bool
    reasons: tuple[str, str, str, str]


def run(folder: Path, name: str | None) -> str:
    """Looks at `folder`, says what it found, and writes conf/experiment/<name>.yaml.

    Args:
        folder: of images.
        name: of the experiment; None: that of the folder.

    Returns:
        The name of the experiment.

    Raises:
        DataError: the folder cannot be used.
        SettingsError: there is an experiment of this name, or it is no name.
    """
    root, folder = project_root(), folder.expanduser()
    if any("\ud800" <= sign <= "\udfff" for sign in str(folder)):  # bytes that are no UTF-8, as Python keeps them
        raise DataError(f"{escaped(str(folder))}: not text in UTF-8, as DVC and settings want a path. Rename it.")
    name = name or _name_of(folder)
    if not re.fullmatch(_NAME, name, re.ASCII):
        raise SettingsError(f"{name!r}: expected letters, digits and _ for a name, a letter first. Say it with --name.")
    target = root / "conf" / "experiment" / f"{name}.yaml"
    if target.exists():
        raise SettingsError(f"{target}: is there already and stays as it is. Give another name with --name.")
    found = look_at(folder)
    print(f"{folder}:")
    for sentence in found.sentences():
        print(f"  {sentence}")
    for reason in _choices(found).reasons:
        print(f"  proposed: {reason}")
    target.write_text(experiment_text(found, name, root), "utf-8")
    try:
        if faults := Composition.create([f"experiment={name}"]).faults:
            raise SettingsFaults(faults)
    except BaseException:
        target.unlink()
        raise
    print(f"{target}: written.", flush=True)
    return name


def _name_of(folder: Path) -> str:
    """A name made of that of the folder, which may have none that can be used."""
    name = re.sub(r"\W+", "_", folder.resolve().name.lower(), flags=re.ASCII).strip("_")
    return name if not name or re.fullmatch(_NAME, name, re.ASCII) else f"images_{name}"


def experiment_text(found: FirstLook, name: str, root: Path) -> str:
    """The text of an experiment for what was found.

    Args:
        found: in the folder.
        name: of the experiment.
        root: the checkout; a folder in it is named from there.
    """
    choices = _choices(found)
    folder = Path(os.path.normpath(found.root.absolute()))
    path = folder.relative_to(root) if folder.is_relative_to(root) else folder
    if "${" in str(path):
        raise DataError(f"{path}: holds ${{, which settings would resolve. Rename the folder.")
    lines = [
        "# @package _global_",
        f"# {figure(len(found.records))} images of {figure(len(found.classes))} classes; proposed by `retinue init`.",
        "#",
        f"# Command: retinue compose experiment={name}, then dvc repro",
        "# Cost: not measured. Expected: not known.",
        "defaults:",
        "  - override /source: image_folder",
        f"  - override /preprocess: {choices.preprocess}",
        f"  - override /augment: {choices.augment} # {choices.reasons[2]}",
        f"  - override /model: {choices.model} # {choices.reasons[1]}",
        f"  - override /transfer: {choices.transfer}",
        "",
        "source:",
        f"  name: {json.dumps(name)}",
        f"  path: {json.dumps(str(path), ensure_ascii=False)}",
        *_layout_lines(found),
        "",
        f"preprocess: # {choices.reasons[0]}",
        f"  image_size: {_stored_side(found)}",
        f"  resize: {_stored_side(found)} # of fit=crop: no more than the longer side is cropped",
        f"  fit: {choices.fit} # {choices.reasons[3]}",
    ]
    counts = found.classes.values()
    train = [*_FITTED_FIRST] if choices.fits_head else []
    if max(counts) >= _UNBALANCED * min(counts):
        said = f"{figure(max(counts))} images of one class, {figure(min(counts))} of another"
        train.append(f"  class_weights: balanced # {said}")
    if train:
        lines += ["", "train:", *train]
    if choices.fits_head:
        lines += ["", *_SLOW_REST]
    return "\n".join([*lines, ""])


def _layout_lines(found: FirstLook) -> Iterator[str]:
    if found.layout.folders:
        yield f"  folders: [{', '.join(found.layout.folders)}]"
    if found.layout.masks:
        yield f"  masks: {json.dumps(found.layout.masks, ensure_ascii=False)}"


def _stored_side(found: FirstLook) -> int:
    decides = found.longer_side if found.why_not_cropped() else found.shorter_side
    return next((side for side in _SIDES if side <= decides), _SIDES[-1])


def _choices(found: FirstLook) -> _Choices:
    side = _stored_side(found)
    loss = found.why_not_cropped()
    decides = f"the longer side is {found.longer_side} px" if loss else f"the shorter side is {found.shorter_side} px"
    size = f"{side} px, {'gray' if found.is_gray else 'in colours'}: {decides}"
    fit = (
        f"fit=pad: {loss}; so all of each image is kept, with black beside it"
        if loss
        else f"fit=crop: a centre crop cuts off {percent(found.cropped)} of an image at the median"
    )
    sided = any(_SIDED.search(name.replace("_", " ")) for name in found.classes)
    photographs = not (found.is_gray or sided or found.layout.masks or side < _SMALL)
    if photographs:
        model, transfer = "mobilenet_v2", "large_similar"
        network = (
            "mobilenet_v2 with ImageNet weights, downloaded once; the head is fitted first, and what training makes "
            "of it is kept where validation is the better for it (experiment=photographs)"
        )
    elif side >= _SMALL:
        model, transfer = "resnet18", "auto"
        network = (
            "resnet18 with ImageNet weights, downloaded once; transfer=auto says how much of it is trained, and why"
        )
    else:
        model, transfer, network = (
            "lenet5",
            "scratch",
            "lenet5 from scratch: the images are too small for ImageNet weights",
        )
    if not photographs:
        reason = (
            "classes whose names are signs or sides"
            if sided
            else "objects with masks"
            if found.layout.masks
            else "gray or small images"
        )
        augment, policy = "light", f"light: no flips and no crops, for {reason}"
    else:
        augment, policy = "photo", "photo: crops, flips and colours, for photographs"
    preprocess = "gray32" if found.is_gray else "rgb224"
    reasons = size, network, policy, fit
    return _Choices(preprocess, augment, model, transfer, "pad" if loss else "crop", photographs, reasons)
