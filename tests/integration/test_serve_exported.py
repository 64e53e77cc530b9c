"""`retinue serve --exported`: what the bundle decides, without torch or anything that trains in the process."""

import signal
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from installed import RUN_TIME, modules_beside
from retinue.bundle import Bundle
from retinue.cli import main
from served import CLASSES, png, service_of, small_bundle

pytestmark = pytest.mark.slow

NOT_IN_THE_IMAGE = modules_beside(RUN_TIME)
"""What is installed here and not where the image of deploy/Dockerfile runs."""
WITHOUT = f"""
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {NOT_IN_THE_IMAGE}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from retinue.cli import main
main()
"""
"""A Python in which they are not installed, as far as an import can tell."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported file, in a folder of its own."""
    folder = tmp_path_factory.mktemp("exported")
    small_bundle().save(folder / "models")
    places = ["--bundle", str(folder / "models"), "--output", str(folder)]
    assert CliRunner().invoke(main, ["export", "onnx", *places]).exit_code == 0
    return folder / "onnx/model.onnx"


def test_it_answers_as_the_bundle_without_what_trains(exported: Path) -> None:
    assert {"torch", "pytorch_lightning", "hydra", "dvc", "wandb", "albumentations", "sklearn"} <= NOT_IN_THE_IMAGE
    images = [png(seed) for seed in range(6)]
    expected = Bundle.load(exported.parents[1] / "models").predict(images)
    with service_of(exported, python=("-c", WITHOUT)) as service:
        for place, image in enumerate(images):
            (found,) = service.ask("/predict", image).json()["images"]
            assert found["predicted"] == expected.names[place]
            assert found["abstained"] is bool(expected.abstained[place])
            assert [found["probs"][name] for name in CLASSES] == pytest.approx(expected.probs[place], abs=1e-6)
            assert found["usual_share"] is None
        for route in ("/explain", "/similar"):
            refused = service.ask(route, images[0])
            assert (refused.status, "serve the bundle" in refused.json()["error"]) == (501, True)
        assert 'name="lenet5"' in service.ask("/metrics").body.decode()
        service.process.send_signal(signal.SIGHUP)
        begun = time.monotonic()
        while not service.metric('retinue_reloads_total{outcome="taken"}'):
            assert time.monotonic() < begun + 60
            time.sleep(0.05)
        assert service.ask("/predict", images[0]).status == 200


def test_what_it_has_not_is_refused_at_the_start(exported: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(exported.read_bytes()[:1000])
    for options, said in (
        (["--exported", str(exported), "--device", "cuda"], "--device and --training-images take a bundle"),
        (["--exported", str(exported), "--training-images", "x"], "--device and --training-images take a bundle"),
        (["--exported", str(exported), "--bundle", "models"], "--bundle and --exported name 2 models"),
        (["--exported", str(broken)], "not a whole ONNX file"),
        (["--exported", str(tmp_path / "none.onnx")], "not a whole ONNX file"),
        (["--exported", str(tmp_path / "model.pt2")], "torch executes what a .pt2 file holds"),
    ):
        result = CliRunner().invoke(main, ["serve", "--port", "0", *options])
        assert result.exit_code in (1, 2), options
        assert said in result.stderr
