"""Train: fits a network on the training split; the best epoch on the validation split becomes the model bundle."""

from dataclasses import astuple, fields
from typing import Any

from retinue.bundle import Bundle
from retinue.describe.describe import describe
from retinue.images.image_digests import read_digests, write_digests
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Epoch, LayerEntry
from retinue.pipeline.files import replacing, write_json, write_table
from retinue.pipeline.numbers import figure
from retinue.pipeline.plan import load_plan, sections_of
from retinue.pipeline.record import dvc_md5
from retinue.pipeline.settings import Settings
from retinue.pipeline.stage import main
from retinue.pipeline.tracker import Tracker
from retinue.training.checkpoints import exclusive
from retinue.training.data import TrainingData, prepare_data
from retinue.training.fit import Fit
from retinue.training.images import TrainingImages
from retinue.training.network import PreparedNetwork, prepare_network
from retinue.training.plan import TrainPlan
from retinue.transfer.prefix_cache.features import FOLDER

SECTIONS = sections_of(TrainPlan)


def run(settings: Settings, tracker: Tracker) -> None:
    """Reads the stores of train and val and the policy, fits, writes models/."""
    plan = load_plan(TrainPlan, settings)
    images = TrainingImages.read()
    prepared = prepare_network(plan, images)
    description = describe(prepared.network, images.shape, plan.train.batch_size, plan.optimizer).document()
    with exclusive(FOLDER):
        data = prepare_data(plan, prepared, images)
    fit = Fit(plan, prepared, images, data)
    with fit.resumable():
        if not fit.run(tracker.lightning_logger()):
            return
        best = fit.take_best()
        bundle = Bundle(prepared.network, plan.model, images.dataset, best)
        _write_bundle(bundle, description, prepared, data, fit)
    tracker.summary({f"best/{key}": value for key, value in best.items() if key != "initial_weights"})
    tracker.summary({"initial_weights": best["initial_weights"]})
    tracker.summary({key: description[key] for key in ("parameters", "multiply_adds", "weight_bytes")})
    tracker.summary({"weights_md5": dvc_md5(artifacts.WEIGHTS)})
    tracker.table("freeze_ledger", [f.name for f in fields(LayerEntry)], [astuple(row) for row in fit.check.layers])
    tracker.artifact(artifacts.MODEL, "model")
    epochs = fit.classifier.history[-1]["epoch"]
    if "fitted_head" in best:
        print(best["fitted_head"])
    print(f"best epoch {best['best_epoch']} of {epochs}: {plan.train.monitor} {figure(best['value'])}")


def _write_bundle(
    bundle: Bundle, description: dict[str, Any], prepared: PreparedNetwork, data: TrainingData, fit: Fit
) -> None:
    """Writes models/ in one step."""
    with replacing(artifacts.MODEL) as folder:
        bundle.save(folder)
        write_json(folder / artifacts.ARCHITECTURE.name, description)
        write_json(folder / artifacts.TRANSFER.name, prepared.transfer_document(data.cache, fit.check, fit.head))
        write_table(folder / artifacts.HISTORY.name, Epoch, [Epoch(**row) for row in fit.classifier.history])
        own = [read_digests(artifacts.PROCESSED / name / artifacts.DIGESTS) for name in ("train", "val")]
        write_digests(folder / artifacts.TRAINED_ON.name, *own, prepared.trained_on)


if __name__ == "__main__":
    main("train", run, SECTIONS)
