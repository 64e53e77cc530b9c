"""`retinue similar` on real digits: what is printed and shown, the file that is kept, and data of another network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from retinue.bundle import Bundle
from retinue.dashboard.similar import Retrieval, run
from retinue.engine.store import ImageStore
from retinue.explainers import similar_index
from retinue.images.image_digests import digests_of, write_digests
from retinue.models.lenet5 import LeNet5
from retinue.pipeline import artifacts
from retinue.pipeline.artifacts import Dataset, Sample
from retinue.pipeline.errors import DataError, ModelError, SettingsError
from retinue.pipeline.files import write_table

MODEL = {"name": "lenet5", "module": "lenet5", "_target_": "retinue.models.lenet5.LeNet5"}
CLASSES = tuple(f"<{digit}>" for digit in range(10))
TRAIN, TEST = slice(0, 120), slice(120, 160)


def pixels() -> tuple[np.ndarray, np.ndarray]:
    """Digits uint8 (160, 32, 32, 1) and their labels."""
    source = load_digits()
    images = np.kron(source.images[:160], np.ones((4, 4)))[..., None] * 15.9
    return images.astype(np.uint8), source.target[:160].astype(np.int64)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A network that has learnt nothing, the splits it is of, and a photo; entered."""
    monkeypatch.chdir(tmp_path)
    images, labels = pixels()
    for name, part in (("train", TRAIN), ("test", TEST)):
        folder = artifacts.PROCESSED / name
        store = ImageStore.create(folder, len(labels[part]), (32, 32, 1))
        for row, image in enumerate(images[part]):
            store.write(row, image)
        samples = [Sample(f"{name}-{row}", label, "", row) for row, label in enumerate(labels[part].tolist())]
        write_table(folder / artifacts.MANIFEST, Sample, samples)
    digests = digests_of(f"{row:016x}" + 48 * "0" for row in range(1, 200))
    write_digests(artifacts.PROCESSED / "train" / artifacts.DIGESTS, digests)
    dataset = Dataset("digits", CLASSES, {}, 32, 32, 1, (0.3,), (0.4,))
    artifacts.write_dataset(artifacts.DATASET, dataset)
    torch.manual_seed(0)
    made = Bundle(LeNet5().eval(), MODEL, dataset, {})
    made.save(artifacts.MODEL)
    write_digests(artifacts.TRAINED_ON, digests)
    Image.fromarray(images[0, ..., 0]).save("photo <b>.png")
    return made


def test_what_is_found_is_printed_and_shown(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    retrieval = Retrieval(artifacts.MODEL, ["head", "colour"], "cpu")
    output = Path("out/page.html").absolute()
    run(retrieval, [Path("photo <b>.png")], count=3, score=False, output=output, as_json=False)
    head, colour, _ = capsys.readouterr().out.split("\n\n")
    assert head.splitlines()[0] == "photo <b>.png, by head (inputs of the head, cosine distance):"
    assert head.splitlines()[2].split() == ["train-0", "<0>", "0.0000"]  # the photo is a training image
    assert colour.splitlines()[2].split() == ["train-0", "<0>", "0.0000"]
    page = output.read_text("utf-8")
    assert page.count("<img") == 2 * (1 + 3)
    assert "photo &lt;b&gt;.png" in page
    assert "<b>" not in page
    run(retrieval, [Path("photo <b>.png")], count=3, score=False, output=output, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert [each["index"] for each in document["images"]] == ["head", "colour"]
    with pytest.raises(DataError, match=r"none\.png"):
        retrieval.similar([Path("none.png")], 3)


def test_precision_is_that_of_an_independent_search(bundle: Bundle) -> None:
    images, labels = pixels()
    with torch.inference_mode():
        vectors = bundle.network.head_inputs(bundle.preprocessing.normalise(torch.from_numpy(images))).numpy()
    search = NearestNeighbors(n_neighbors=5, metric="cosine", algorithm="brute").fit(vectors[TRAIN])
    found = labels[TRAIN][search.kneighbors(vectors[TEST], return_distance=False)]
    (score,) = Retrieval(artifacts.MODEL, ["head"], "cpu").scores(5)
    assert score.precision_score == pytest.approx((found == labels[TEST][:, None]).mean())
    assert score.low < score.precision_score < score.high
    assert (score.k, score.num_images) == (5, 40)


def test_an_index_is_kept_until_network_or_images_change(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar_index, "MOST_KEPT", 2)
    kept = []
    for seed in (0, 0, 1, 2):
        torch.manual_seed(seed)
        Bundle(LeNet5().eval(), MODEL, bundle.dataset, {}).save(artifacts.MODEL)
        Retrieval(artifacts.MODEL, ["head"], "cpu")
        kept.append({path.name for path in similar_index.FOLDER.glob("*/")})
    assert kept[0] == kept[1]
    assert [len(names) for names in kept] == [1, 1, 2, 2]
    assert not kept[0] & kept[3]


def test_images_that_the_network_was_not_trained_on_are_refused(bundle: Bundle) -> None:
    def refusal() -> str:
        with pytest.raises((DataError, ModelError)) as caught:
            Retrieval(artifacts.MODEL, ["head"], "cpu")
        return str(caught.value)

    with pytest.raises(SettingsError, match="device: 'tpu9' cannot be used here"):
        Retrieval(artifacts.MODEL, ["head"], "tpu9")
    write_digests(artifacts.TRAINED_ON, digests_of(f"{row:016x}" + 48 * "0" for row in range(50, 200)))
    assert "of the 199 images of data/processed/train are not among those that this network was trained on" in refusal()
    artifacts.write_dataset(artifacts.DATASET, Dataset("digits", CLASSES, {}, 32, 32, 1, (0.31,), (0.4,)))
    assert "trained on images of other preprocessing than those of data/processed/train" in refusal()
    artifacts.DATASET.unlink()
    assert "data/processed/dataset.json: no such file" in refusal()
