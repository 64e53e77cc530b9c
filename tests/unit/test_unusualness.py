"""How unusual an image is: distances as scikit-learn's, shares as derived, and a file that fits its weights alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.neighbors import NearestNeighbors

from retinue.bundle import Bundle
from retinue.metrics.unusualness import NEIGHBOUR, Unusualness
from retinue.models.lenet5 import LeNet5
from retinue.pipeline.artifacts import KNOWN, Dataset
from retinue.pipeline.errors import ModelError

MODEL = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5"}
DATASET = Dataset("insects", ("ant", "bee"), {}, 28, 28, 1, (0.5,), (0.25,))


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [40, NEIGHBOUR - 2])
def test_distances_are_those_of_scikit_learn(count: int) -> None:
    known, asked = 3 * drawn(count, 16), drawn(9, 16, seed=1)
    peer = NearestNeighbors(n_neighbors=min(count, NEIGHBOUR), metric="cosine").fit(known.numpy())
    expected = peer.kneighbors(asked.numpy())[0][:, -1]
    found = Unusualness(known, torch.tensor([0.5])).distance(asked).numpy()
    assert found == pytest.approx(expected, abs=1e-3)  # of known images in half precision
    assert found != pytest.approx(peer.kneighbors(asked.numpy())[0][:, 0], abs=1e-3)


def test_shares_count_the_validation_images_that_are_as_far_and_the_image_itself() -> None:
    known = torch.tensor([[1.0, 0.0]])
    asked = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 0.0]])  # distances 0, 0.293, 1, 2
    found = Unusualness(known, torch.tensor([1.5, 0.2, 1.0]))(asked)
    assert found.distances.tolist() == pytest.approx([0, 1 - 0.5**0.5, 1, 2], abs=1e-6)
    assert found.usual_shares.tolist() == [4 / 4, 3 / 4, 3 / 4, 1 / 4]  # 1.0 is as far as 1.0


def test_of_images_like_those_of_validation_no_more_are_told_unusual_than_is_said() -> None:
    known, val, new = drawn(200, 8), drawn(999, 8, seed=1), drawn(4000, 8, seed=2)
    model = Unusualness(known, torch.empty(0))
    shares = Unusualness(known, model.distance(val))(new).usual_shares
    for level in (0.01, 0.05, 0.2):  # four standard deviations of the two draws together
        spread = 4 * (level * (1 - level) * (1 / 4000 + 1 / 999)) ** 0.5
        assert float((shares <= level).float().mean()) == pytest.approx(level, abs=spread)
    assert float((Unusualness(known, model.distance(val))(drawn(500, 8) + 40).usual_shares).max()) <= 1


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    network = LeNet5(in_channels=1, num_classes=1, image_size=28)
    return Bundle(network, MODEL, DATASET, {}, unusualness=Unusualness(drawn(30, 84).abs(), drawn(20).abs()))


IMAGES = [np.full((28, 28), level, np.uint8) for level in (0, 100, 250)]


def test_a_bundle_tells_it_of_its_predictions_after_it_was_saved(bundle: Bundle, tmp_path: Path) -> None:
    found = bundle.predict(IMAGES, batch_size=2)
    inputs = bundle.preprocessing.normalise(next(bundle.batches(IMAGES, 3)))
    with torch.inference_mode():
        assert bundle.unusualness is not None
        expected = bundle.unusualness(bundle.network.eval().head_inputs(inputs))
    assert found.distances == pytest.approx(expected.distances.numpy(), abs=1e-6)
    assert found.usual_shares == pytest.approx(expected.usual_shares.numpy())
    bundle.save(tmp_path)
    again = Bundle.load(tmp_path).predict(IMAGES, batch_size=2)
    assert (again.distances == found.distances).all()
    assert (again.logits == found.logits).all()
    unknown = Bundle.load(tmp_path, with_decision=False).predict(IMAGES)
    assert np.isnan(unknown.distances).all()
    assert np.isnan(unknown.usual_shares).all()


def test_a_file_that_is_not_of_these_weights_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    bundle.save(tmp_path)
    path = tmp_path / KNOWN.name
    tensors = load_file(path)
    made = path.read_bytes()
    for changed, said in (
        ({"known": tensors["known"]}, "expected the tensors known"),
        ({**tensors, "known": tensors["known"].float()}, "expected the tensors known"),
        ({**tensors, "distances": tensors["distances"][:0]}, "expected the tensors known"),
        ({**tensors, "distances": tensors["distances"] * np.nan}, "NaN or infinite"),
        (tensors, "made with other weights"),
    ):
        save_file(changed, path)
        with pytest.raises(ModelError, match=said):
            Bundle.load(tmp_path)
    path.write_bytes(made[:-10])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        Bundle.load(tmp_path)
    path.unlink()
    assert Bundle.load(tmp_path).unusualness is None
