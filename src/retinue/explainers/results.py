"""What explain writes for each explainer, and what is said of the maps when all of them are there.

The explainer that is chosen has the key `FIRST` and its files stand in explanations/ itself; each of the others has the
name of its file as key, and a folder in explanations/also/.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from retinue.engine.store import ImageStore, RowFile
from retinue.engine.writing import JsonSink, PngSink, ResultSink, take_documents
from retinue.explainers.explainer import Explainer
from retinue.explainers.localisation import energy_score, mean_scores, pointing_score
from retinue.explainers.measures.summary import measures_document
from retinue.explainers.several import explainer_file
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation, FurtherExplainer, Localisation, MeasuredMap, Prediction
from retinue.pipeline.files import write_json, write_table

FIRST = ""


def create_maps(folder: Path, keys: Iterable[str], count: int, image_shape: Sequence[int]) -> None:
    """Makes the empty files of `count` maps, of the first explainer and of those with `keys`."""
    for key in dict.fromkeys([FIRST, *keys]):
        _result_place(folder, key, artifacts.OVERLAYS).mkdir(parents=True, exist_ok=True)
        RowFile.create(_result_place(folder, key, artifacts.MAPS), (count, *image_shape[:2]), np.float32).close()


def places_of(folder: Path, keys: Iterable[str], rank: int) -> dict[str, Callable[[], ResultSink]]:
    """Where a rank writes: for each key `maps/<key>` and `overlays/<key>`, and `measures`."""
    places: dict[str, Callable[[], ResultSink]] = {"measures": partial(JsonSink, folder, rank)}
    for key in keys:
        maps, overlays = _result_place(folder, key, artifacts.MAPS), _result_place(folder, key, artifacts.OVERLAYS)
        places[f"maps/{key}"] = partial(RowFile, maps, writable=True)
        places[f"overlays/{key}"] = partial(PngSink, overlays)
    return places


def marked_empty(folder: Path, gallery: Sequence[Explanation]) -> list[Explanation]:
    """The gallery, with the maps of the first explainer that are zero everywhere said to be so."""
    empty = {*_empty_maps(folder, FIRST)}
    return [replace(entry, is_empty=entry.map in empty) for entry in gallery]


def further_explainers(
    folder: Path, also: Sequence[str], explainers: Mapping[str, Explainer], reasons: Mapping[str, str]
) -> list[FurtherExplainer]:
    """What gallery.json says of the explainers besides the first.

    Args:
        folder: explanations/, with the maps.
        also: their keys, in the order of the settings.
        explainers: key -> the explainer.
        reasons: key -> why it has nothing to show.
    """
    return [
        FurtherExplainer(
            name=key,
            explainer=explainers[key].label,
            target_layer=explainers[key].target_layer,
            reason=reasons.get(key),
            empty=[] if key in reasons else _empty_maps(folder, key),
        )
        for key in also
    ]


def write_localisation(folder: Path, gallery: Sequence[Explanation], masks: ImageStore) -> dict[str, Any]:
    """Scores the first explainer's maps of the images whose mask is not empty; returns the means over all of them."""
    maps, rows = RowFile(_result_place(folder, FIRST, artifacts.MAPS)), []
    for entry in gallery:
        mask = masks[entry.row][..., 0] > 0
        if mask.any():
            heat = maps[entry.map]
            scores = energy_score(heat, mask), pointing_score(heat, mask), float(mask.mean())
            rows.append(Localisation(entry.image_id, entry.map, entry.outcome, *scores))
    maps.close()
    write_table(folder / artifacts.LOCALISATION.name, Localisation, rows)
    document = mean_scores(rows)
    write_json(folder / artifacts.LOCALISATION_MEANS.name, document)
    means: dict[str, Any] = document["all"]
    return means


def write_measures(folder: Path, gallery: Sequence[Explanation], predictions: Sequence[Prediction]) -> dict[str, Any]:
    """Collects what all ranks have measured; returns measures.json.

    Args:
        folder: explanations/, to which the ranks have written.
        gallery: the explained images.
        predictions: on the test split, which say which images belong together.
    """
    rows = [
        MeasuredMap(gallery[each["map"]].image_id, each["map"], **row)
        for each in take_documents(folder)
        for row in each["rows"]
    ]
    write_table(folder / artifacts.MEASURED.name, MeasuredMap, rows)
    units = {entry.image_id: predictions[entry.row].unit for entry in gallery}
    document = measures_document(rows, units)
    write_json(folder / artifacts.MEASURES_OF_EXPLAINERS.name, document)
    return document


def gallery_document(
    called: str, first: Explainer, reason: str | None, gallery: Sequence[Explanation], also: Sequence[FurtherExplainer]
) -> dict[str, Any]:
    """The document gallery.json; `called` is what people call the first explainer."""
    return {
        "name": explainer_file(first),
        "explainer": called,
        "target_layer": first.target_layer,
        "applicable": reason is None,
        "reason": reason,
        "images": [asdict(entry) for entry in gallery],
        "also": [asdict(entry) for entry in also],
    }


def _result_place(folder: Path, key: str, path: Path) -> Path:
    return folder / path.name if key == FIRST else folder / artifacts.ALSO.name / key / path.name


def _empty_maps(folder: Path, key: str) -> list[int]:
    maps = RowFile(_result_place(folder, key, artifacts.MAPS))
    found = [row for row in range(len(maps)) if not maps[row].any()]
    maps.close()
    return found
