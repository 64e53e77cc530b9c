"""A sample of the fuzzing: every reader answers some random inputs with a result or an explained error."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_sample_of_every_reader(tmp_path: Path) -> None:
    """The seed is another one every time, so that in the long run much is tried; a failure prints how to repeat it."""
    seed = random.SystemRandom().randrange(1 << 30)
    done = fuzz("--inputs", "4000", "--seed", str(seed), "--output", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["inputs"] >= 4000
    assert not [row["target"] for row in report["targets"] if row["inputs"] == 0]


@pytest.mark.slow
def test_a_reader_that_is_broken_is_found(tmp_path: Path) -> None:
    """Of the four ways to fail, each in a reader of its own, with the smallest input that was found."""
    script = tmp_path / "broken.py"
    script.write_text(
        """
import os, sys, time
from pathlib import Path
from tests.fuzz import probe, running, table
from tests.fuzz.target import Target

def raises(data):
    if b"x" in data: raise KeyError("x")

def hangs(data):
    if data: time.sleep(60)

def dies(data):
    if b"x" in data: os.abort()

def hoards(data):
    if b"x" in data: bytearray(b"y") * (700 << 20)

running.TIME_LIMIT_S = 4
running.MAX_STARTS = 1
for read in (raises, hangs, dies, hoards):
    table.TARGETS[read.__name__] = Target(read.__name__, 1, lambda: [b"abx"], lambda _, read=read: read)
tasks = running.tasks_of({"raises": 300, "hangs": 1, "dies": 2, "hoards": 1}, 0, "mutation")
for name, tally in running.run(tasks, 2, lambda *_: None).items():
    for fault in tally.faults.values():
        print(name, fault.kind, fault.data)
""",
        "utf-8",
    )
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    assert "raises KeyError b'x'" in lines, done.stdout + done.stderr
    assert "hangs hang b'abx'" in lines
    assert "dies ended by signal 6 b'abx'" in lines
    assert "hoards memory b'abx'" in lines


@pytest.mark.slow
def test_the_valid_inputs_are_valid() -> None:
    """Each reader but those that never have a result takes one of the inputs that all others are made of."""
    script = """
import os, sys, tempfile
from pathlib import Path
from tests.fuzz.table import TARGETS

sizes = 0
for target in TARGETS.values():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        read, taken = target.make(Path(folder)), 0
        for data in target.seeds():
            sizes += len(data)
            try:
                read(data)
                taken += 1
            except Exception:
                pass
        if not taken:
            print(target.name)
        os.chdir("/")
print(sizes)
sys.stdout.flush()
os._exit(0)
"""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True)
    *refused, sizes = done.stdout.split()
    assert refused == ["params-section", "download"], done.stderr  # a section alone is no composition; no digest fits
    assert int(sizes) < 200_000
