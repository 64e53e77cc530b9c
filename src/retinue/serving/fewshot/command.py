"""The command `retinue fewshot`."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from retinue.bundle import Bundle
from retinue.explainers.similar_index import INDEXES, image_vectors
from retinue.metrics.few_shot import FewShotScore, few_shot_score
from retinue.pipeline.errors import DataError
from retinue.pipeline.names import escaped
from retinue.pipeline.numbers import figure, interval

_BATCH = 64
_UNREADABLE_SHOWN = 5


@dataclass(frozen=True)
class Episodes:
    """How episodes are drawn; see `few_shot_score`.

    Attributes:
        ways: classes of an episode.
        shots: images of each that are known; a row of the table each.
        queries: images of each that are to be told.
        episodes: number of them.
        seed: of the draws.
    """

    ways: int
    shots: Sequence[int]
    queries: int
    episodes: int
    seed: int


def run(bundle: Bundle, folder: Path, how: Episodes, *, device: str, as_json: bool) -> None:
    """Measures the features of a bundle, and colours beside them, on the classes in a folder.

    Args:
        bundle: the trained network.
        folder: with a folder for each class.
        how: episodes are drawn.
        device: torch's name of what computes.
        as_json: prints one JSON document.

    Raises:
        DataError: the folder has too few classes or images, or a class that the bundle was trained on.
        SettingsError: there is no such device.
    """
    bundle.move_to(device)
    files = class_files(folder, bundle.classes)
    vectors, labels = _vectors(bundle, files)
    scores = {
        name: [
            few_shot_score(
                own,
                labels,
                ways=how.ways,
                shots=shots,
                queries=how.queries,
                episodes=how.episodes,
                seed=how.seed,
            )
            for shots in how.shots
        ]
        for name, own in vectors.items()
    }
    if as_json:
        print(json.dumps({name: [each._asdict() for each in own] for name, own in scores.items()}, indent=2))
        return
    print(
        f"{figure(len(labels))} images of {figure(len(files))} classes that {bundle.model.get('name')} was not trained "
        f"on; {how.ways}-way, {figure(how.episodes)} episodes, {how.queries} queries of each class; by chance "
        f"{figure(1 / how.ways)}"
    )
    print("\n".join(_score_rows(scores)))


def class_files(folder: Path, known: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each class in a folder, hidden ones left out.

    Raises:
        DataError: it is no folder of folders, or names a class that the network was trained on.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Expected one with a folder of images for each class.")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise DataError(f"{folder}: {len(classes)} folders in it, expected one for each of at least two classes.")
    trained_on = sorted({path.name for path in classes} & {*known})
    if trained_on:
        raise DataError(
            f"{folder}: the network was trained on {', '.join(map(repr, trained_on[:5]))}. Expected classes that it "
            "does not know; take those away."
        )
    return {
        path.name: sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
        for path in classes
    }


def _vectors(bundle: Bundle, files: dict[str, list[Path]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Name of an index -> the vectors of all images that can be read, float32 (N, D); and their labels int64 (N,)."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in INDEXES}
    labels: list[int] = []
    unreadable: list[str] = []
    total = sum(map(len, files.values()))
    with (
        torch.inference_mode(),
        tqdm(desc="fewshot", total=total, unit=" images", disable=None, leave=False, file=sys.stderr) as bar,
    ):
        for label, own in enumerate(files.values()):
            for start in range(0, len(own), _BATCH):
                given, bad = own[start : start + _BATCH], dict[int, str]()
                for batch in bundle.batches(given, _BATCH, bad):
                    for name, found in parts.items():
                        found.append(image_vectors(name, bundle, batch.numpy()))
                    labels += [label] * len(batch)
                unreadable += bad.values()
                bar.update(len(given))
    for reason in unreadable[:_UNREADABLE_SHOWN]:
        print(f"unreadable: {escaped(reason)}", file=sys.stderr)
    if len(unreadable) > _UNREADABLE_SHOWN:
        print(f"unreadable: {figure(len(unreadable) - _UNREADABLE_SHOWN)} more", file=sys.stderr)
    if not labels:
        raise DataError("none of the files can be read as an image.")
    return {name: np.concatenate(found) for name, found in parts.items()}, np.array(labels, np.int64)


def _score_rows(scores: dict[str, list[FewShotScore]]) -> list[str]:
    rows = [("shots", "by", "accuracy", "95 % interval")]
    rows += [
        (str(each.shots), name, figure(each.accuracy), interval((each.low, each.high)))
        for name, own in scores.items()
        for each in own
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
