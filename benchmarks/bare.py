"""The peer of commands that use a model: decoding and forward passes alone, of networks that nobody has trained."""

from retinue.bundle import Bundle, Images, build_network
from retinue.pipeline.artifacts import Dataset
from retinue.pipeline.composition import compose

CLASSES = 10


def untrained_bundle(model: str, side: int) -> Bundle:
    """Architecture `model` with random weights, for RGB images of `side` px and ten classes."""
    dataset = Dataset("noise", tuple(map(str, range(CLASSES))), {}, side, side, 3, (0.5,) * 3, (0.25,) * 3)
    settings = compose([f"model={model}"])["model"]
    return Bundle(build_network(settings, dataset).eval(), settings, dataset, {})


def predict_bare(bundle: Bundle, images: Images, batch_size: int) -> None:
    """Decodes and computes all images in this process, and keeps nothing."""
    for batch in bundle.batches(images, batch_size):
        bundle.predict_decoded(batch)
