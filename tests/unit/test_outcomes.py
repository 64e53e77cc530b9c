"""An experiment is a commit of somebody: its hashes, names, pictures and texts are checked before they are used."""

import json
import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from retinue.experiments import outcomes
from retinue.experiments.lock import checked_digest, checked_name
from retinue.experiments.outcomes import Experiment, Workspace, all_experiments
from retinue.pipeline.errors import DataError, RetinueError
from retinue.reports.embedding import opened_picture, picture

LISTING, OVERLAY = "0f" * 16, "1f" * 16
PIPELINE = "stages: {explain: {cmd: explain, params: [explain], outs: [explanations]}}\n"
SETTINGS = "explain: {opacity: 0.5}\n"
LOCK = """
schema: '2.0'
stages:
  explain:
    cmd: explain
    params: {params.yaml: {explain: {opacity: 0.5}}}
    outs:
    - {path: explanations, hash: md5, md5: DIGEST}
"""

Make = Callable[..., Experiment]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes an experiment with a DVC cache in tmp_path/cache; tmp_path/private.png is nobody's business."""
    root, cache = tmp_path / "project", tmp_path / "cache"
    (root / "x").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "private.png")
    monkeypatch.setattr(outcomes, "project_root", lambda: root)
    monkeypatch.setattr(outcomes, "_cache_folder", lambda _: cache)
    subprocess.run(["git", "init", "-q", "."], cwd=root, check=True)

    def made(listing: Any = None, *, digest: str = f"{LISTING}.dir", name: str = "made", **files: str) -> Experiment:
        texts = {"dvc_lock": LOCK.replace("DIGEST", digest), "dvc_yaml": PIPELINE, "params_yaml": SETTINGS, **files}
        for key, text in texts.items():
            (root / key.replace("_", ".", 1)).write_bytes(text.encode("utf-8", "surrogateescape"))
        for md5, content in ((f"{LISTING}.dir", json.dumps(listing).encode()), (OVERLAY, b"overlay")):
            (cache / md5[:2]).mkdir(parents=True, exist_ok=True)
            (cache / md5[:2] / md5[2:]).write_bytes(content)
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", "add", "-A"], cwd=root, check=True)
        subprocess.run(["git", *identity, "commit", "-qm", "x"], cwd=root, check=True)
        reference = f"refs/exps/ab/{'c' * 38}/{name}"
        subprocess.run(["git", "update-ref", reference, "HEAD"], cwd=root, check=True)
        return all_experiments()[-1]

    return made


def test_what_dvc_writes_is_read(make: Make, tmp_path: Path) -> None:
    experiment = make([{"md5": OVERLAY, "relpath": "overlays/00001.png"}])
    assert experiment.files("explanations/overlays") == {"00001.png": tmp_path / "cache/1f" / OVERLAY[2:]}


@pytest.mark.parametrize(
    "entry",
    [
        {"md5": "zz/../../private.png", "relpath": "overlays/a.png"},
        {"md5": "../private.png", "relpath": "overlays/a.png"},
        {"md5": OVERLAY.upper(), "relpath": "overlays/a.png"},
        {"md5": OVERLAY + "\n", "relpath": "overlays/a.png"},
        {"md5": OVERLAY[:-1], "relpath": "overlays/a.png"},
        {"md5": 1, "relpath": "overlays/a.png"},
        {"relpath": "overlays/a.png"},
        {"md5": OVERLAY, "relpath": "overlays/../../private.png"},
        {"md5": OVERLAY, "relpath": "/etc/hostname"},
        {"md5": OVERLAY, "relpath": "overlays//a.png"},
        {"md5": OVERLAY, "relpath": "./a.png"},
        {"md5": OVERLAY, "relpath": "a\0.png"},
        {"md5": OVERLAY, "relpath": "a" * 256},
        {"md5": OVERLAY, "relpath": "b/c.png"},
        {"md5": OVERLAY},
        "overlays/a.png",
    ],
    ids=repr,
)
def test_a_listing_that_leads_out_of_the_cache_or_the_folder_is_refused(entry: Any, make: Make) -> None:
    experiment = make([{"md5": OVERLAY, "relpath": "b"}, entry])
    with pytest.raises(DataError, match=r"^experiment made: "):
        experiment.files("explanations")


@pytest.mark.parametrize("listing", [None, {}, "text", 3])
def test_a_listing_that_is_none_is_refused(listing: Any, make: Make) -> None:
    with pytest.raises(DataError, match=r"the list of the files of explanations is none\. .*dvc exp pull"):
        make(listing).files("explanations")


@pytest.mark.parametrize(
    "digest", ["zz/../../private.png", "'../../private.dir'", "[1, 2]", "0x" + "1" * 30, "''' '''"]
)
def test_a_lock_whose_hash_is_none_is_refused(digest: str, make: Make) -> None:
    with pytest.raises(DataError, match=r"explanations: got .* for its hash, expected 32 hexadecimal digits"):
        make([], digest=digest).files("explanations")


@pytest.mark.parametrize("path", ["../explanations", "/etc/hostname", "a/../../b"])
def test_a_lock_whose_out_lies_outside_is_refused(path: str, make: Make) -> None:
    with pytest.raises(DataError, match=r"dvc\.lock: got .* for a name"):
        make([], dvc_lock=LOCK.replace("DIGEST", LISTING).replace("path: explanations", f"path: {path}")).hashes()


@given(st.text(max_size=40))
@pytest.mark.slow
def test_what_passes_as_a_hash_or_a_name_stays_inside(text: str) -> None:
    for check in (checked_digest, checked_name):
        try:
            kept = check(text, "where")
        except DataError:
            continue
        assert os.path.normpath(f"/cache/{kept}").startswith("/cache/")
        assert check is checked_name or os.path.normpath(f"/cache/{kept[:2]}/{kept[2:]}").startswith("/cache/")


DEEP = '{"a":' * 70 + "1" + "}" * 70
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)
BAD_YAML = {
    "deep": "[" * 100_000,
    "deep mappings": "{a: " * 100_000,
    "deep lines": "".join(" " * level + "a:\n" for level in range(300)),
    "bomb": BOMB,
    "in itself": "explain: &a [*a]\n",
    "unknown alias": "explain: *nothing\n",
    "not UTF-8": "explain: \udcff\n",
    "NUL": "explain: \0\n",
    "no date": "explain: 2024-99-99\n",
    "open": "explain: {",
    "a list": "[1, 2]",
    "a number": "7",
}


@pytest.mark.parametrize("text", BAD_YAML.values(), ids=BAD_YAML)
@pytest.mark.parametrize("file", ["dvc_lock", "params_yaml", "dvc_yaml"])
def test_a_yaml_text_of_any_kind_is_a_message(file: str, text: str, make: Make) -> None:
    """Here libyaml would end the process, there whoever walks what it gives would not end."""
    experiment = make([], **{file: text})
    replaced = file == "params_yaml" and "\udcff" in text  # from git comes a sign of its own for it, and other settings
    for outcome in (Workspace(),) if replaced else (experiment, Workspace()):
        with pytest.raises(RetinueError, match=r"dvc\.lock|params\.yaml|dvc\.yaml"):
            outcome.lock()
    if file == "params_yaml" and text not in (BAD_YAML["not UTF-8"], BAD_YAML["no date"]):
        with pytest.raises(RetinueError, match=r"params\.yaml"):
            experiment.settings()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a": 1, "a": 2}', '{"a": NaN}', '{"a": "\\ud800"}', "\udcff", "{", DEEP],
)
def test_metrics_of_any_kind_are_a_message(text: str, make: Make, tmp_path: Path) -> None:
    pipeline = PIPELINE.replace("outs: [explanations]", "metrics: [evaluation/metrics.json]")
    lock = LOCK.replace("path: explanations", "path: evaluation/metrics.json").replace("DIGEST", LISTING)
    (tmp_path / "project/evaluation").mkdir()
    (tmp_path / "project/evaluation/metrics.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"experiment made: evaluation/metrics\.json: not valid JSON"):
        make([], dvc_yaml=pipeline, dvc_lock=lock).metrics()


def test_a_name_for_a_shell_is_quoted(make: Make) -> None:
    with pytest.raises(RetinueError, match=r"`dvc exp apply '\$\(id\)'`"):
        make([{"md5": "2f" * 16, "relpath": "a"}], name="$(id)").files("explanations")


def test_a_picture_of_another_format_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("PostScript is interpreted"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: not a readable image \(neither PNG nor JPEG\)"):
        picture(tmp_path / "a.png")


def test_a_picture_that_is_larger_than_a_page_is_not_decoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with pytest.raises(DataError, match="12000 x 12000 px, more than a page shows"):
        opened_picture(tmp_path / "a.png")
