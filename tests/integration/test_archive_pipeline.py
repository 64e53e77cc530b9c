"""From an archive on the web to the stores: fetched once, kept by DVC, the same as from the folder it was made of."""

import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from compositions import compose
from loopback import Files, begins_at, part, serving
from project import Project
from retinue.pipeline import artifacts
from retinue.pipeline.files import read_json
from retinue.pipeline.settings import Settings
from retinue.pipeline.tracker import Tracker
from retinue.sources import published, tar_members
from retinue.stages import acquire, preprocess
from small_sets import image, packed, small_files, with_files

PHOTOS = {
    f"{split}/{label}/{number}.png": image(100 * a + 10 * b + number, size=(40, 36))
    for a, split in enumerate(("train", "test"))
    for b, label in enumerate(("ant", "bee"))
    for number in range(8)
}
STORES = ("train", "val", "test")


def run(*stages: Any, source: dict[str, Any]) -> None:
    values = {**compose(["trainer.num_workers=0"]), "source": source}
    for stage in stages:
        stage.run(Settings(values, stage.SECTIONS), Tracker(None))


def results(folder: Path) -> dict[str, bytes]:
    """Manifests and stores, by path."""
    paths = [folder / artifacts.RAW_MANIFEST, *(folder / artifacts.PROCESSED).rglob("*")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths) if path.is_file()}


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tar_members, "_UNPACKED", tmp_path / "unpacked")
    monkeypatch.setattr(published, "DOWNLOADS", tmp_path / "downloads")
    return tmp_path


def in_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("kind", ["zip", pytest.param("tar:gz", marks=pytest.mark.slow)])
def test_an_archive_on_the_web_gives_what_its_folder_gives(
    kind: str, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in PHOTOS.items():
        (places / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (places / "photos" / name).write_bytes(content)
    folder = in_checkout(places / "a", monkeypatch)
    source = compose(["source=image_folder", f"source.path={places / 'photos'}", "source.name=archive_url"])["source"]
    run(acquire, preprocess, source=source)
    archive = in_checkout(places / "b", monkeypatch)
    files = {"photos.bin": packed({f"top/{name}": content for name, content in PHOTOS.items()}, kind)}
    server = Files(files)
    with serving(server) as address:
        source = with_files(compose(["source=archive_url"])["source"], files, address)
        run(acquire, acquire, source=source)
    assert server.asked == [("photos.bin", 0)]
    assert (artifacts.FETCHED / "photos.bin").read_bytes() == files["photos.bin"]
    for path in [*(places / "downloads").rglob("*"), *(places / "unpacked").rglob("*")]:  # another machine has neither
        if path.is_file():
            path.unlink()
    run(preprocess, source=source)
    assert results(archive) == results(folder)
    assert len(results(archive)) > 5


def test_pets_have_their_masks_in_the_test_store(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_checkout(places / "a", monkeypatch)
    files = small_files("oxford_pets")
    with serving(Files(files)) as address:
        run(acquire, source=with_files(compose(["source=oxford_pets"])["source"], files, address))
        run(preprocess, source=with_files(compose(["source=oxford_pets"])["source"], files, address))
    card = read_json(artifacts.CARD)
    assert (card["images"], card["given_splits"]) == (12, {"train": 8, "test": 4})
    assert card["licence"] == "CC BY-SA 4.0"
    assert (artifacts.PROCESSED / "test" / artifacts.MASKS).is_dir()


@pytest.mark.slow
def test_photographs_from_a_zip_on_the_web_are_those_of_the_folder(
    extras: Path, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = extras / "data/hymenoptera"
    folder = in_checkout(places / "a", monkeypatch)
    splits = ("source.val_folder=null", "source.test_folder=val", "source.name=hymenoptera")
    run(acquire, source=compose(["source=image_folder", f"source.path={photos}", *splits])["source"])
    archive = in_checkout(places / "b", monkeypatch)
    names = sorted(path for path in photos.rglob("*") if path.is_file())
    content = {f"hymenoptera_data/{path.relative_to(photos)}": path.read_bytes() for path in names}
    files = {"hymenoptera_data.zip": packed(content, "zip")}
    with serving(Files(files)) as address:
        run(acquire, source=with_files(compose(["source=hymenoptera"])["source"], files, address))
    for name in (artifacts.RAW_MANIFEST, artifacts.QUARANTINE):
        assert (archive / name).read_bytes() == (folder / name).read_bytes()
    assert read_json(artifacts.CARD)["given_splits"] == {"train": 244, "test": 153}


@pytest.mark.slow
def test_dvc_keeps_what_was_fetched(project: Project) -> None:
    files = {"photos.zip": packed(PHOTOS, "zip")}
    server = Files(files)
    with serving(server) as address:
        section = with_files({"url": "", "checksum": ""}, files, address)
        project.compose("source=archive_url", *(f"source.{key}={value}" for key, value in section.items()))
        project.repro("preprocess")
    assert len(server.asked) == 1
    project.run("rm", "-rf", "data/raw", "data/processed", ".cache")
    project.run("dvc", "checkout", "acquire")
    assert (project.path / artifacts.FETCHED / "photos.zip").read_bytes() == files["photos.zip"]
    assert "didn't change, skipping" in project.repro("acquire").stdout
    project.stage("preprocess")


@pytest.mark.slow
def test_a_killed_acquire_goes_on_with_its_download(project: Project) -> None:
    padding = {"train/ant/large.bin": bytes(range(256)) * 40_000}  # ten pieces, stored
    files = {"photos.tar": packed({**PHOTOS, **padding}, "tar")}
    asked = list[int]()

    def stalling(client: socket.socket, _: str, request: bytes) -> None:
        asked.append(begins_at(request))
        whole = part(files["photos.tar"], begins_at(request))
        client.sendall(whole[: 6 * 2**20] if len(asked) == 1 else whole)
        time.sleep(60 if len(asked) == 1 else 0)

    with serving(stalling) as address:
        section = with_files({"url": "", "checksum": ""}, files, address)
        values = [f"source.{key}={value}" for key, value in section.items()]
        project.compose("source=archive_url", "source.max_bad_fraction=0.1", *values)
        process = project.start(sys.executable, "-m", "retinue.stages.acquire")
        until = time.monotonic() + 60
        while time.monotonic() < until and _received(project) < 2**20:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        left = _received(project)
        project.repro("acquire")
    assert left >= 2**20
    assert asked == [0, left]
    assert (project.path / artifacts.FETCHED / "photos.tar").read_bytes() == files["photos.tar"]


def _received(project: Project) -> int:
    return sum(path.stat().st_size for path in (project.path / ".cache/downloads").rglob("*.partial"))
