"""The record of a run: a line for each case in JSON, to go on from, and the table of docs/reliability.md."""

import json
import platform
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from tests.torture.verdict import KINDS

BEGIN, END = "<!-- figures: made by `make torture` -->", "<!-- end of figures -->"
TITLES = {"kills": "killed", "writes": "faults of the system", "doubled": "two at a time"}


class Record:
    """The outcomes so far, in a file of lines.

    Args:
        path: of the file; what it holds of the same seed is not run again.
        seed: of the plan.
    """

    def __init__(self, path: Path, seed: int):
        self._path, self._seed = path, seed
        self.outcomes: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                entry = json.loads(line)
                if entry["seed"] == seed:
                    self.outcomes[entry["case"]] = entry
        path.parent.mkdir(parents=True, exist_ok=True)

    def add(self, case: str, outcome: dict[str, Any], seconds: float) -> None:
        """Adds the outcome of a case, and writes it."""
        entry = {"seed": self._seed, "case": case, "seconds": round(seconds, 2), **outcome}
        self.outcomes[case] = entry
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def failures(self) -> dict[str, list[str]]:
        """Kind of failure -> a line for each."""
        found = defaultdict(list)
        for case, entry in sorted(self.outcomes.items()):
            for kind, text in entry["failures"]:
                found[kind].append(f"{case} ({entry['what']}): {text}")
        return dict(found)


def markdown(record: Record) -> str:
    """The table: a row for each group of faults, totals for each kind."""
    columns = list(KINDS)
    lines = [
        f"| fault | delivered | {' | '.join(columns)} | peak memory, MB |",
        f"|---|---|{'---|' * len(columns)}---|",
    ]
    for kind, title in TITLES.items():
        entries = [entry for case, entry in record.outcomes.items() if case.startswith(kind) and entry["delivered"]]
        groups = sorted({entry["group"] for entry in entries})
        if entries:
            lines += [_row(f"**{title}**", entries, columns)]
            lines += [_row(group, [entry for entry in entries if entry["group"] == group], columns) for group in groups]
    missed = sum(not entry["delivered"] for entry in record.outcomes.values())
    seconds = sum(entry["seconds"] for entry in record.outcomes.values())
    outlived = max((entry["outlived_s"] for entry in record.outcomes.values()), default=0)
    lines += [
        "",
        f"{missed} further cases hit nothing and count for nothing. {seconds / 60:.0f} minutes of one process, on "
        f"{platform.system()} {platform.machine()}. Processes outlived a kill by at most {outlived:.1f} s.",
    ]
    return "\n".join(lines)


def _row(title: str, entries: list[dict[str, Any]], columns: list[str]) -> str:
    counts = [sum(any(kind == column for kind, _ in entry["failures"]) for entry in entries) for column in columns]
    peak = max(entry["peak_bytes"] for entry in entries) / 1e6
    return f"| {title} | {len(entries)} | {' | '.join(map(str, counts))} | {peak:.0f} |"


def write_page(path: Path, table: str) -> None:
    """Puts the table between the marks of the page."""
    text = path.read_text("utf-8")
    pattern = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.DOTALL)
    path.write_text(pattern.sub(lambda _: f"{BEGIN}\n{table}\n{END}", text), "utf-8")
