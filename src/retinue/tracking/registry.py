"""`retinue register`: the model of this checkout, as it was logged to W&B, in a collection of W&B's registry."""

from collections.abc import Sequence
from typing import Any

from retinue.pipeline.artifacts import MODEL, MODEL_CARD, read_model_card
from retinue.pipeline.composition import load_params
from retinue.pipeline.errors import RetinueError
from retinue.pipeline.record import dvc_md5
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import TrackingSettings
from retinue.tracking.runs import server

KIND = "model"


def run(collection: str, *, registry: str, aliases: Sequence[str]) -> None:
    """Links the logged model to a collection, and says where it is.

    Args:
        collection: name of the collection; W&B makes it where there is none.
        registry: name of W&B's registry.
        aliases: further names of this version there.

    Raises:
        DataError, ModelError: there is no model, or its card is of other weights.
        RetinueError: there is no server or no key, the server has no such model or another one, or refuses to link it.
    """
    settings = Settings(load_params())
    tracking = settings.section("tracking", TrackingSettings)
    if read_model_card() is None:
        raise RetinueError(f"{MODEL_CARD}: no such file; a model is registered with its card. Run `dvc repro`.")
    project = f"{tracking.entity}/{tracking.project}" if tracking.entity else tracking.project
    logged = f"{project}/{MODEL}:{settings.fingerprint()}"
    with server() as api:
        if not api.artifact_exists(logged, type=KIND):
            raise RetinueError(
                f"{logged}: the server has no such model. Run the pipeline with tracking=online, or send its runs with "
                "`wandb sync`."
            )
        artifact = api.artifact(logged, type=KIND)
        _check_same_model(artifact, logged)
        linked = artifact.link(f"wandb-registry-{registry}/{collection}", aliases=[*aliases])
        print(f"{logged}: registered as {linked.qualified_name}")


def _check_same_model(artifact: Any, logged: str) -> None:
    """Refuses a model that is not the one in this checkout."""
    ours, theirs = dvc_md5(MODEL), (artifact.metadata or {}).get("dvc_md5")
    if ours != theirs:
        raise RetinueError(
            f"{logged}: the server's model is another one than {MODEL}/ (MD5 {theirs}, here {ours}). Run `dvc repro` "
            "with tracking=online, which logs the one that is here."
        )
