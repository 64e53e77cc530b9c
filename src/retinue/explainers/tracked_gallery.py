"""What W&B is shown of the explanations: overlays, a table of the predictions with their pictures, the measures."""

from collections.abc import Mapping, Sequence
from typing import Any

from retinue.engine.store import ImageStore
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Explanation
from retinue.pipeline.numbers import figure
from retinue.pipeline.tracker import Tracker
from retinue.pipeline.wandb_charts import MAX_PICTURE_ROWS

_COLUMNS = ("image_id", "label", "predicted", "confidence", "outcome", "image", "map")


def track_explanations(
    tracker: Tracker,
    gallery: Sequence[Explanation],
    classes: Sequence[str],
    store: ImageStore,
    measures: Mapping[str, Any] | None,
) -> None:
    """Shows the tracker what was written to explanations/.

    Args:
        tracker: of the stage.
        gallery: the explained images.
        classes: names.
        store: of the test split.
        measures: of the explainer that is chosen; None where it was not measured.
    """
    means = {key: value["mean"] for key, value in (measures or {}).items() if isinstance(value, Mapping)}
    tracker.summary({f"explained/{key}": value for key, value in means.items()})
    captions = [
        f"{entry.outcome.replace('_', ' ')}: {classes[entry.label]}, predicted {classes[entry.predicted]} "
        f"({figure(entry.confidence)}), shown: {'no ' if entry.is_empty else ''}evidence for {classes[entry.target]}"
        for entry in gallery
    ]
    tracker.images("explanations", [artifacts.OVERLAYS / e.overlay for e in gallery], captions)
    rows = []
    for entry in gallery[:MAX_PICTURE_ROWS]:
        said = [entry.image_id, classes[entry.label], classes[entry.predicted], entry.confidence, entry.outcome]
        rows.append([*said, store[entry.row], artifacts.OVERLAYS / entry.overlay])
    tracker.table("predictions", _COLUMNS, rows)
    for path in (artifacts.FILTERS, artifacts.FEATURE_MAPS):
        if path.exists():
            tracker.images(f"inside/{path.stem}", [path], [path.stem.replace("_", " ")])
    tracker.artifact(artifacts.EXPLANATIONS, "explanations")
