"""The command `retinue sliding`: images larger than those of the training, each scored in one pass."""

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import torch
from PIL import Image

from retinue.bundle import Bundle
from retinue.images.decoding import decode
from retinue.images.fitting import resize_shorter_side
from retinue.images.limits import USUAL_LIMITS
from retinue.images.overlay import overlay
from retinue.pipeline.errors import DataError, RetinueError, SettingsError
from retinue.pipeline.numbers import figure, seconds, significant
from retinue.serving.overlays import SMALLEST_OVERLAY
from retinue.serving.sliding.comparing import CropComparison, compare_with_crops
from retinue.serving.sliding.convert import Convolutional, to_convolutional
from retinue.serving.sliding.scoring import ClassMaps, checked_stride, dense_scores

LARGEST_IMAGE = 2**24
"""px of a resized image; as float32 in three channels, 192 MiB."""
_SHOWN = 3


@dataclass
class SlidingScorer:
    """What is the same for all images of a command.

    Attributes:
        bundle: of the trained network.
        sliding: the network as one of convolutions.
        shorter_side: of the resized images, px.
        stride: px from one position to the next.
        output: folder of the class maps; None writes none.
        crops: whether each image is scored by single crops, too.
    """

    bundle: Bundle
    sliding: Convolutional
    shorter_side: int
    stride: int
    output: Path | None
    crops: bool
    _written: set[str] = field(default_factory=set)

    @classmethod
    def create(
        cls, folder: Path, *, shorter_side: int | None, stride: int | None, output: Path | None, crops: bool
    ) -> "SlidingScorer":
        """Loads the bundle in `folder`, converts its network and checks the rest; None means the default.

        Raises:
            DataError, ModelError: no bundle, or a network that cannot slide.
            SettingsError: `shorter_side` is below the training size, `stride` does not divide the network's, or
                `output` cannot be a folder.
        """
        bundle = Bundle.load(folder)
        size = bundle.dataset.image_size
        if shorter_side is None:
            shorter_side = round(size * 12 / 7)  # as 384 px to 224
        if shorter_side < size:
            raise SettingsError(
                f"shorter side: expected at least the {size} px the network was trained on, got {shorter_side}."
            )
        sliding = to_convolutional(bundle.network, size)
        if output is not None:
            _make(output)
        return cls(bundle, sliding, shorter_side, checked_stride(sliding, stride), output, crops)

    def score(self, path: Path) -> dict[str, Any]:
        """Scores one image, writes its class maps and gives what is reported of it.

        Raises:
            DataError: the file is missing or no image, or it is too large.
        """
        image = self._load(path)
        preprocessing = self.bundle.preprocessing
        normalised = preprocessing.normalise(torch.from_numpy(image)[None])[0]
        found = dense_scores(self.sliding, normalised, self.stride, self.bundle.decision)
        scores = dict(zip(self.bundle.classes, found.mean.tolist(), strict=True))
        result = {
            "image": str(path),
            "predicted": self.bundle.classes[found.predicted],
            "abstained": found.abstained,
            "scores": scores,
            "positions": list(found.probs.shape[:2]),
        }
        if self.output is not None:
            result.update(self._write(self.output, path, image, found))
        if self.crops:
            result["crops"] = compare_with_crops(self.bundle.network, self.sliding, normalised, self.stride)._asdict()
        return result

    def _load(self, path: Path) -> np.ndarray:
        """The image, uint8 (H, W, C), with its shorter side resized as preprocessing resizes, after its operations."""
        preprocessing = self.bundle.preprocessing
        try:
            USUAL_LIMITS.check_file(path.stat().st_size)
            image = decode(
                path.read_bytes(),
                channels=preprocessing.channels,
                shorter_side=self.shorter_side,
                white=preprocessing.white,
            )
        except OSError as error:
            raise DataError(f"cannot be read ({error.strerror}). Expected an image file.") from error
        except DataError as error:
            raise DataError(f"{error}.") from error
        return preprocessing.chain(resized(image, self.shorter_side))

    def _write(self, folder: Path, path: Path, image: np.ndarray, found: ClassMaps) -> dict[str, str]:
        name = _unique(path.stem, self._written)
        maps, shown = folder / f"{name}.npy", folder / f"{name}.png"
        np.save(maps, found.probs, allow_pickle=False)
        heat = laid_on_image(found.probs[:, :, found.predicted], self.sliding.image_size, found.stride, image.shape[:2])
        Image.fromarray(overlay(image, heat, size=max(SMALLEST_OVERLAY, self.shorter_side))).save(shown)
        return {"maps": str(maps), "overlay": str(shown)}


def run(scorer: SlidingScorer, images: Sequence[Path], *, as_json: bool) -> None:
    """Scores `images`, prints what was found, and fails at the end where one could not be scored.

    Raises:
        RetinueError: with the reason for each image that could not be scored.
    """
    scored, failed = [], []
    wants_bar = len(images) > 1 and sys.stderr.isatty()
    bar = click.progressbar(images, label="sliding", file=sys.stderr) if wants_bar else nullcontext(images)
    with bar as paths:
        for path in paths:
            try:
                scored.append(scorer.score(path))
            except DataError as error:
                failed.append({"image": str(path), "error": str(error)})
    network: dict[str, Any] = {
        "image_size": scorer.sliding.image_size,
        "stride": scorer.stride,
        "exact": scorer.sliding.exact,
    }
    decision = scorer.bundle.decision
    network |= {"temperature": decision.temperature, "operating_point": decision.operating_point}
    network |= {"threshold": decision.threshold} if len(scorer.bundle.classes) == 2 else {}
    if as_json:
        print(
            json.dumps({**network, "shorter_side": scorer.shorter_side, "images": scored, "failed": failed}, indent=2)
        )
    else:
        for result in scored:
            print(_result_line(result, scorer.stride))
        if scorer.crops and scored:
            print(_limit(scorer))
    if failed:
        reasons = "".join(f"\n  {entry['image']}: {entry['error']}" for entry in failed)
        raise RetinueError(f"{len(failed)} of {len(images)} images could not be scored:{reasons}")


def resized(image: np.ndarray, shorter_side: int) -> np.ndarray:
    """`image` uint8 (H, W, C) with a shorter side of `shorter_side` px, as `Preprocessing` resizes before its crop.

    Raises:
        DataError: the result would have more than `LARGEST_IMAGE` px.
    """
    height, width = image.shape[:2]
    scale = shorter_side / min(height, width)
    down, across = max(shorter_side, round(height * scale)), max(shorter_side, round(width * scale))
    if down * across > LARGEST_IMAGE:
        raise DataError(
            f"{figure(across)} × {figure(down)} px after resizing its shorter side to {shorter_side}; expected at most "
            f"{figure(LARGEST_IMAGE)} px in all. Choose a smaller shorter side, or cut the image."
        )
    return resize_shorter_side(image, shorter_side)


def laid_on_image(scores: np.ndarray, image_size: int, stride: int, shape: tuple[int, ...]) -> np.ndarray:
    """A class map laid on its image: each score at the centre of its crop, linear between, constant beyond the last.

    Args:
        scores: float (positions_y, positions_x).
        image_size: side of a crop, px.
        stride: px from one crop to the next.
        shape: (H, W) of the image, px.

    Returns:
        float32 (H, W).
    """
    centres = (
        np.clip((np.arange(side) + 0.5 - image_size / 2) / stride, 0, count - 1)
        for side, count in zip(shape, scores.shape, strict=True)
    )
    down, across = np.meshgrid(*(centre.astype(np.float32) for centre in centres), indexing="ij")
    return cv2.remap(scores.astype(np.float32), across, down, interpolation=cv2.INTER_LINEAR)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise SettingsError(f"output: {folder} cannot be a folder: there is a file in its way.") from error


def _unique(stem: str, taken: set[str]) -> str:
    """`stem`, or with the first number that makes it a name of its own."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def _result_line(result: dict[str, Any], stride: int) -> str:
    best = sorted(result["scores"].items(), key=lambda item: -item[1])[:_SHOWN]
    scores = ", ".join(f"{name} {figure(score)}" for name, score in best)
    down, across = result["positions"]
    said = f"undecided, if any {result['predicted']}" if result["abstained"] else result["predicted"]
    line = f"{result['image']}: {said} ({scores}), mean of {down} × {across} positions, {stride} px apart"
    if "overlay" in result:
        line += f"; {result['overlay']}"
    if "crops" in result:
        found = CropComparison(**result["crops"])
        line += (
            f"\n  one pass {seconds(found.pass_s)}, {found.positions} crops {seconds(found.crops_s)}: "
            f"{significant(found.ratio, 2)} times as fast; "
            f"probabilities differ by at most {significant(found.largest_difference, 2)}, "
            f"same class at {found.agreeing} of {found.positions} positions"
        )
    return line


def _limit(scorer: SlidingScorer) -> str:
    name = type(scorer.bundle.network).__name__
    if scorer.sliding.exact:
        return f"{name} pads nowhere: one pass and single crops give the same, up to rounding."
    return (
        f"{name} pads its maps: at its border a crop sees zeros where the sliding network sees what lies beside the "
        "crop, so the scores differ."
    )
