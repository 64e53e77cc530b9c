"""Hundreds of files, good, bad and hostile: what is good is accepted, what is bad has its reason, nothing is costly."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from retinue.images.decoding import decode, examine
from retinue.pipeline.errors import DataError
from torture_images import BOUNDS, TortureImage, torture_images

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")

ALLOWED_MB = 600
WORKER = """
import sys
import retinue.stages.acquire
from retinue.images.decoding import decode, examine
from retinue.pipeline.errors import DataError
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    try:
        examine(data)
        decode(data, channels=3, shorter_side=224)
    except DataError:
        pass
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) // 1024)
"""


def fault(image: TortureImage) -> str:
    """What is wrong with how the file was taken; empty where nothing is."""
    data = image.make()
    try:
        found = examine(data, white=image.white)
        pixels = decode(data, channels=3, white=image.white)
    except DataError as error:
        right = not image.is_good and re.search(image.reason, str(error))
        return "" if right else f"{image.name}: {error}; expected {image.reason or 'that it is accepted'}"
    if not image.is_good:
        return f"{image.name}: accepted; expected {image.reason}"
    return "" if pixels.shape == (found.height, found.width, 3) else f"{image.name}: {found} and {pixels.shape}"


def test_files_of_all_sorts_are_taken_as_is_right_for_them() -> None:
    assert list(filter(None, map(fault, list(torture_images())[::19]))) == []


@pytest.mark.slow
def test_every_file_is_taken_as_is_right_for_it(capfd: pytest.CaptureFixture[str]) -> None:
    images = list(torture_images())
    assert len(images) >= 400
    assert len({image.name for image in images}) == len(images)
    assert 0.3 <= sum(image.is_good for image in images) / len(images) <= 0.6
    assert list(filter(None, map(fault, images))) == []
    assert capfd.readouterr() == ("", ""), "decoders print on their own, without the file's name"


@pytest.mark.slow
def test_hostile_files_take_little_memory(tmp_path: Path) -> None:
    """Peak of a process that has imported all that a worker of acquire has."""
    paths = []
    for number, (make, _) in enumerate(BOUNDS.values()):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(make())
    command = [sys.executable, "-c", WORKER, *map(str, paths)]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert peak <= ALLOWED_MB
