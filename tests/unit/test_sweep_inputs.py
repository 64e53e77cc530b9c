"""A trial reads the user's untracked files where its settings name them, and what it would not find is refused."""

from pathlib import Path

import pytest

from project import Project
from retinue.pipeline.errors import SettingsFaults
from retinue.pipeline.git import git
from retinue.sweeps.axes import parse, points
from retinue.sweeps.checkout import Checkout, Snapshot
from retinue.sweeps.inputs import check_trials, link

FOLDER = ("source=image_folder", "optimizer.lr=0.01,0.1")


@pytest.fixture
def root(project: Project, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project.path)
    write(project.path / "known/a/1.png")
    project.commit("images")
    for name in ("photos (été)/cat/1.png", "data/more/dog/2.png", "known/a/2.png", "weights.pth"):
        write(project.path / name)
    return project.path


def write(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(path.name.encode())


def checked(root: Path, *overrides: str) -> tuple[str, ...]:
    return check_trials(root, points(parse({}, [*FOLDER, *overrides])))


@pytest.mark.slow
def test_the_paths_of_all_trials_are_found(root: Path, tmp_path: Path) -> None:
    found = checked(root, 'source.path="photos (été)",data/more,known', "weights=file", "weights.path=weights.pth")
    code = "src/retinue/pipeline/artifacts.py"  # what preprocess.inputs names where no split is pinned
    assert found == ("data/more", "known", "photos (été)", code, "weights.pth")
    assert "known" not in checked(root, f"source.path={root / 'known'}")  # absolute: the same for a trial


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere", "source.path: got nowhere, expected a path that exists. There is no "),
        ("../outside", "source.path: got ../outside, expected a path inside the checkout, or an absolute one."),
        (".", "source.path: got ., expected a path inside the checkout"),
    ],
)
def test_what_a_trial_would_not_find_is_refused(path: str, message: str, root: Path) -> None:
    (root.parent / "outside").mkdir()
    with pytest.raises(SettingsFaults) as caught:
        checked(root, f"source.path=known,{path}", "weights=file", "weights.path=missing.pth")
    told = [str(fault) for fault in caught.value.faults]
    assert any(each.startswith(message) for each in told)
    assert any(each.startswith("weights.path: got missing.pth, expected a path that exists.") for each in told)
    assert len(told) == 2


def test_a_path_without_a_default_is_asked_for(root: Path) -> None:
    with pytest.raises(SettingsFaults, match=r"source\.path: got nothing, .* give it as source\.path=PATH"):
        checked(root)


def test_a_clone_sees_what_the_checkout_sees_and_git_does_not(root: Path, tmp_path: Path) -> None:
    clone = Checkout.create(tmp_path / "clone", Snapshot.take(root)).path
    link(root, clone, ["photos (été)", "data/more", "known", "params.yaml"])
    for name in ("photos (été)/cat/1.png", "data/more/dog/2.png", "known/a/1.png", "known/a/2.png", "params.yaml"):
        assert (clone / name).read_bytes() == (root / name).read_bytes(), name
    assert (clone / "photos (été)").is_symlink()
    assert not (clone / "known").is_symlink()
    assert not (clone / "params.yaml").is_symlink()
    assert git(clone, "status", "--porcelain") == ""
    Checkout(clone, root).remove()
    assert (root / "photos (été)/cat/1.png").exists()


def test_what_dvc_tracks_is_left_to_dvc(root: Path, tmp_path: Path) -> None:
    write(root / "bought/a/1.png")
    write(root / "bought.dvc")
    git(root, "add", "bought.dvc")
    clone = Checkout.create(tmp_path / "clone", Snapshot.take(root)).path
    link(root, clone, ["bought"])
    assert not (clone / "bought").exists()
