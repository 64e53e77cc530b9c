"""`retinue preview`: one page that shows what preprocess and augment make of images of the source."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from retinue.dashboard.preview_images import PreviewImage, PreviewImages, preview_images
from retinue.images.audit import audit
from retinue.images.augmentation import AppliedTransform, Policy
from retinue.images.operations.chain import Chain
from retinue.images.preprocess_settings import PreprocessSettings
from retinue.pipeline.numbers import figure, percent, short, significant
from retinue.pipeline.plan import load_plan
from retinue.pipeline.settings import Settings
from retinue.reports import page as report
from retinue.reports.embedding import Picture, picture
from retinue.reports.tables import flattened, policy_audit
from retinue.sources.source import Source
from retinue.stages.augment import AugmentSettings

FOLDER = Path(__file__).parent

EPOCHS, DRAWS_ALONE = 5, 4
"""Draws of the whole policy for each image, and of each transform alone."""

MOST_ALONE = 40
"""Transforms that are shown alone."""

MOST_STEPPED = 3
"""Images that are shown after each operation of preprocess."""

LARGEST_PAGE = 4_500_000
"""Bytes. A page above it is made again with smaller pictures."""

TILES = (224, 160, 112, 72)
"""Longest sides of its pictures, px, in the order in which they are tried."""

_NOT_DRAWN = {
    *("shape", "rows", "cols", "interpolation", "mask_interpolation", "fill", "fill_mask", "border_mode"),
    *("output_shape", "bbox_matrix"),
}
"""Parameters that Albumentations takes from the arguments and the image, or has for boxes."""

_SCALARS = (int, float, np.number)
_LONGEST_WORD = 40  # characters of a drawn parameter that is no number
_MOST_NUMBERS = 9
"""Numbers of a drawn parameter that are written out; of more, how many there are."""


@dataclass(frozen=True)
class PreviewPlan:
    """The settings of a preview."""

    seed: int
    source: Source
    preprocess: PreprocessSettings
    augment: AugmentSettings


class Tile(NamedTuple):
    """A picture of the page with its caption.

    Attributes:
        picture: as small as the page needs it.
        alt: what it shows, in words.
        title: first line of the caption.
        lines: further ones.
    """

    picture: Picture
    alt: str
    title: str
    lines: list[str]


class PreviewRow(NamedTuple):
    """Tiles beside each other under a heading; `note` is a sentence below it, or empty."""

    heading: str
    note: str
    tiles: list[Tile]


def run(composition: Mapping[str, Any], *, images: int, output: Path) -> None:
    """Writes the page and says where it is.

    Args:
        composition: of conf/.
        images: of the source, at most.
        output: the page.

    Raises:
        SettingsError: a setting cannot be used, or a transform does not suit the images.
        DataError: the source has no image that can be used.
    """
    plan = load_plan(PreviewPlan, Settings(composition))
    policy = Policy(plan.augment.transforms, plan.seed)
    found = preview_images(plan.source, plan.preprocess.preprocessing(plan.source.white_value()), images)
    policy.check(found.images[0].seen)
    text = bounded_page(lambda side: render_preview(plan, policy, found, side), TILES)
    size = report.write_page(output, text)
    noun = "image" if len(found.images) == 1 else "images"
    print(f"{figure(len(found.images))} {noun} of {plan.source.name}, policy {plan.augment.name}")
    print(f"preview {output.as_uri()} ({short(size, 'B')})")


def bounded_page(render: Callable[[int], str], sides: Sequence[int]) -> str:
    """The page that `render` makes with pictures of the first of `sides` at which it is no larger than it may be."""
    for side in sides:
        text = render(side)
        if len(text.encode()) <= LARGEST_PAGE:
            break
    return text


def render_preview(plan: PreviewPlan, policy: Policy, found: PreviewImages, side: int) -> str:
    """The page as HTML; everything that is not of our own making is escaped.

    Args:
        plan: the settings.
        policy: of `plan`.
        found: what is shown.
        side: longest side of a picture, px.
    """
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    audited = audit({index: image.seen for index, image in enumerate(found.images)}, policy, EPOCHS)
    alone = [] if policy.is_empty else policy.alone()
    chain = plan.preprocess.preprocessing(None).chain
    return environment.get_template("preview.html.j2").render(
        title=f"Preview of {plan.source.name}",
        plan=plan,
        is_empty=policy.is_empty,
        seen=[_before_and_after(image, side) for image in found.images],
        stepped=[_operations(chain, image, side) for image in found.images[:MOST_STEPPED] if chain.steps],
        unusable=found.unusable,
        audit=policy_audit(audited),
        findings=[] if policy.is_empty else audited.findings,
        drawn=[] if policy.is_empty else [_epochs(policy, i, image, side) for i, image in enumerate(found.images)],
        alone=[_alone(each, i, found.images, side) for i, each in enumerate(alone[:MOST_ALONE])],
        left_out=max(0, len(alone) - MOST_ALONE),
        style=Markup((report.FOLDER / "style.css").read_text("utf-8")),
    )


def _before_and_after(image: PreviewImage, side: int) -> PreviewRow:
    file, name = image.file, f"{image.label}, {image.image_id}"
    size = f"{figure(file.width)} × {figure(file.height)} px, {file.mode}"
    height, width, channels = image.seen.shape
    seen = f"{figure(width)} × {figure(height)} px, {'gray' if channels == 1 else 'RGB'}"
    kept = [seen, f"{percent(image.cropped)} cut off"] if image.cropped else [seen]
    tiles = [
        Tile(small_picture(image.original, side), f"{name}: as it is in the source", "source", [size]),
        Tile(small_picture(image.seen, side), f"{name}: as the network sees it", "network", kept),
    ]
    return PreviewRow(image.label, image.image_id, tiles)


def _operations(chain: Chain, image: PreviewImage, side: int) -> PreviewRow:
    """The square, and it after each operation of preprocess."""
    name = f"{image.label}, {image.image_id}"
    tiles = [Tile(small_picture(image.square, side), f"{name}: before the operations", "square", [])]
    for number, (step, stage) in enumerate(zip(chain.entries(), chain.stages(image.square), strict=True), start=1):
        arguments = {key: value for key, value in step.items() if key != "name"}
        lines = [f"{key} {value}" for key, value in flattened(arguments)]
        alt = f"{name}: after operation {number}, {step['name']}"
        tiles.append(Tile(small_picture(stage, side), alt, f"{number}. {step['name']}", lines))
    return PreviewRow(image.label, image.image_id, tiles)


def _epochs(policy: Policy, index: int, image: PreviewImage, side: int) -> PreviewRow:
    tiles = [_tile_of_draw(policy, index, image, epoch, side) for epoch in range(EPOCHS)]
    return PreviewRow(image.label, image.image_id, [_undrawn(image, side), *tiles])


def _alone(policy: Policy, number: int, images: Sequence[PreviewImage], side: int) -> PreviewRow:
    """One transform of the policy on one of the images; draws that are the same are shown once, the first of them."""
    (transform,) = policy.transforms
    index = number % len(images)
    name, operations = transform["name"], transform.get("operations", [])
    heading = f"{name}: {operations[0]}" if len(operations) == 1 else name
    arguments = {key: value for key, value in transform.items() if key not in ("name", "p")}
    note = ", ".join(f"{key} {value}" for key, value in flattened(arguments)) if arguments else "no arguments"
    tiles = [_tile_of_draw(policy, index, images[index], epoch, side) for epoch in range(DRAWS_ALONE)]
    different = list({tile.picture: tile for tile in reversed(tiles)}.values())[::-1]
    return PreviewRow(heading, note, [_undrawn(images[index], side), *different])


def _undrawn(image: PreviewImage, side: int) -> Tile:
    return Tile(small_picture(image.seen, side), f"{image.label}, {image.image_id}: before", "before", [])


def _tile_of_draw(policy: Policy, index: int, image: PreviewImage, epoch: int, side: int) -> Tile:
    drawn = policy(image.seen, epoch, index)
    applied = policy.last_applied()
    lines = [_words(each) for each in applied] or ["as it is: chance left everything out"]
    alt = f"{image.label}, {image.image_id}, epoch {1 + epoch}: {'; '.join(lines)}"
    return Tile(small_picture(drawn, side), alt, f"epoch {1 + epoch}", lines)


def _words(applied: AppliedTransform) -> str:
    """A transform with what was drawn for it: "Affine: rotate −7.31, scale.x 0.95"."""
    drawn = {key: value for key, value in applied.parameters.items() if key not in _NOT_DRAWN}
    said = [text for key, value in drawn.items() if (text := _parameter(key, value))]
    return f"{applied.name}: {', '.join(said)}" if said else applied.name


def _parameter(key: str, value: Any) -> str:
    if key == "drawn":
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value or "nothing fits")
    if isinstance(value, Mapping):
        return ", ".join(_parameter(f"{key}.{inner}", each) for inner, each in value.items())
    if isinstance(value, np.ndarray) and value.size > _MOST_NUMBERS:
        return f"{key} {' × '.join(map(str, value.shape))} numbers"
    if isinstance(value, np.ndarray | list | tuple):
        numbers = value.ravel().tolist() if isinstance(value, np.ndarray) else value
        is_short = len(numbers) <= _MOST_NUMBERS and all(isinstance(each, _SCALARS) for each in numbers)
        return f"{key} [{', '.join(map(_scalar_text, numbers))}]" if is_short else f"{key} {len(numbers)} values"
    return f"{key} {_scalar_text(value)}"


def _scalar_text(value: Any) -> str:
    is_number = isinstance(value, _SCALARS) and not isinstance(value, bool)
    return significant(float(value), 3) if is_number else str(value)[:_LONGEST_WORD]


def small_picture(image: np.ndarray, side: int) -> Picture:
    """The image for the page, its longer side at most `side` px."""
    height, width, channels = image.shape
    scale = side / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], channels)
    return picture(image)
