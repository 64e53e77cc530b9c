"""What a stage reads, compared with what is there when it ends; and what DVC sees of it."""

import os
from pathlib import Path
from typing import Any

import pytest

from retinue.pipeline import snapshot
from retinue.pipeline.errors import DataError, SettingsError
from retinue.pipeline.record import dvc_md5, hashes
from retinue.pipeline.snapshot import InputSnapshot
from retinue.pipeline.watched import is_watched, refuse_missing_corrections, refuse_unreadable

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a/1", "photos/a/2", "weights.pth", "raw/manifest.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name)
    Path("params.yaml").write_text("seed: 0\nsource: {path: photos, formats: [PNG]}\ntrain: {lr: 0.1}\n")
    return tmp_path


PARAMS: dict[str, Any] = {"seed": 0, "source": {"path": "photos", "formats": ["PNG"]}}


def taken() -> InputSnapshot:
    return InputSnapshot.take(PARAMS, ["photos", "weights.pth", "raw"])


@pytest.mark.parametrize("hashed_bytes", [0, 1 << 20], ids=["by time", "by contents"])
def test_every_change_is_told_with_both_versions(
    hashed_bytes: int, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_HASHED_BYTES", hashed_bytes)
    before = taken()
    before.check()
    Path("params.yaml").write_text("seed: 1\nsource: {path: photos, formats: [PNG, BMP], white: 3}\n")
    Path("photos/a/1").unlink()
    Path("photos/a/2").write_text("x" * 2000)
    Path("photos/b").mkdir()
    Path("photos/b/\x1b[2J").touch()
    Path("weights.pth").unlink()
    with pytest.raises(DataError) as told:
        before.check()
    assert str(told.value).splitlines()[1:-1] == [
        "  params.yaml: seed: 0 -> 1",
        "  params.yaml: source.formats: ['PNG'] -> ['PNG', 'BMP']",
        "  params.yaml: source.white: nothing -> 3",
        "  photos/a/1: removed",
        "  photos/a/2: changed (10 B -> 2,000 B)",
        "  photos/b/\\x1b[2J: added",
        "  weights.pth: removed",
    ]


def test_lists_of_sections_are_told_by_their_entries_and_a_lost_section_by_its_settings(place: Path) -> None:
    transforms = [{"name": "Affine", "p": 0.9}, {"name": "HorizontalFlip", "p": 0.5}]
    before = InputSnapshot.take({"augment": {"transforms": transforms}, "seed": 0}, [])
    Path("params.yaml").write_text("augment: {transforms: [{name: Affine, p: 0.8}]}\n")
    with pytest.raises(DataError) as told:
        before.check()
    assert str(told.value).splitlines()[1:-1] == [
        "  params.yaml: augment.transforms[0].p: 0.9 -> 0.8",
        "  params.yaml: augment.transforms[1].name: 'HorizontalFlip' -> nothing",
        "  params.yaml: augment.transforms[1].p: 0.5 -> nothing",
        "  params.yaml: seed: 0 -> nothing",
    ]


def test_of_many_changes_some_are_told(place: Path) -> None:
    before = taken()
    for index in range(1000):
        Path(f"photos/a/new{index}").touch()
    with pytest.raises(DataError) as told:
        before.check()
    assert "\n  and 990 more\n" in str(told.value)


def test_the_same_contents_are_no_change_where_contents_are_compared(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = taken()
    os.utime("photos/a/1", ns=(1, 1))
    before.check()
    monkeypatch.setattr(snapshot, "_HASHED_BYTES", 0)
    large = taken()
    os.utime("photos/a/1", ns=(2, 2))
    with pytest.raises(DataError, match=r"photos/a/1: replaced or written to \(10 B before and after\)"):
        large.check()


def test_another_section_and_a_run_without_params_yaml_do_not_look(place: Path) -> None:
    before, by_overrides = taken(), InputSnapshot.take(None, ["photos"])
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("lr: 0.1", "lr: 0.2"))
    before.check()
    Path("params.yaml").write_text("seed: [broken")
    by_overrides.check()
    with pytest.raises(SettingsError, match=r"params\.yaml"):
        before.check()


def test_pipes_devices_and_links_to_nowhere_are_not_opened(place: Path) -> None:
    os.mkfifo("photos/pipe")
    Path("photos/zero").symlink_to("/dev/zero")
    Path("photos/loop").symlink_to("loop")
    Path("photos/broken").symlink_to("nowhere")
    before = taken()
    before.check()
    Path("photos/broken").unlink()
    Path("photos/broken").symlink_to("elsewhere")
    with pytest.raises(DataError, match=r"photos/broken: "):
        before.check()


def test_what_dvc_cannot_hash_is_named_before_it_is_asked(place: Path) -> None:
    values = {"source": {"inputs": "photos"}, "seed": 0}
    refuse_unreadable(values)
    Path("photos/a/@eaDir").mkdir()
    Path("photos/a/@eaDir/broken").symlink_to("nowhere")
    os.mkfifo("photos/pipe")
    with pytest.raises(DataError) as refused:
        refuse_unreadable(values)
    assert "source.inputs: 2 of what lies there is no file" in str(refused.value)
    assert "\n  photos/pipe: a pipe" in str(refused.value)
    assert "\n  photos/a/@eaDir/broken: a broken link" in str(refused.value)


def test_a_hash_that_cannot_be_is_told_and_left_out(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("photos/pipe")
    assert hashes(["photos", "weights.pth", "nowhere"]) == {"weights.pth": dvc_md5(Path("weights.pth"))}
    told = "warning: photos: DVC cannot hash it (photos/pipe: a pipe), so its hash is not recorded\n"
    assert capsys.readouterr().err == told


def test_what_dvcignore_leaves_out_is_no_change() -> None:
    patterns = [line for line in (ROOT / ".dvcignore").read_text().splitlines() if not line.startswith("#")]
    assert patterns
    for pattern in patterns:
        assert not is_watched(pattern.replace("*", "any"))


def test_the_table_of_corrections_is_missed_before_dvc_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"data/corrections\.csv: .*git checkout data/corrections\.csv.*image,label,drop,reason"
    ):
        refuse_missing_corrections()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/corrections.csv").write_text("image,label,drop,reason\n")
    refuse_missing_corrections()
