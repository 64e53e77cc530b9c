"""data/corrections.csv: what is refused, with the numbers of all lines, and what is applied."""

from pathlib import Path

import pytest

from retinue.pipeline import artifacts
from retinue.pipeline.errors import DataError
from retinue.sources.corrections import corrected
from retinue.sources.notices import say_what_was_found
from retinue.sources.source import SourceRecord

ROOT = Path(__file__).resolve().parents[2]
RECORDS = [
    SourceRecord("a/1.jpg", "ant", "g1", "train"),
    SourceRecord("a/2.jpg", "ant"),
    SourceRecord("b/1.jpg", "bee"),
    SourceRecord("b/notes.txt", "", is_stray=True),
]


def table(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "corrections.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_label_is_replaced_and_the_rest_of_the_record_kept(tmp_path: Path) -> None:
    path = table(
        tmp_path, '\ufefflabel,image,reason,drop\r\nbee, a/1.jpg ,"wings, two pairs",\r\n,,,\r\n,b/1.jpg,empty,yes\r\n'
    )
    found = corrected(RECORDS, path, "insects")
    assert found.records == [SourceRecord("a/1.jpg", "bee", "g1", "train"), RECORDS[1], RECORDS[3]]
    assert [(c["image_id"], c["was"], c["now"], c["reason"]) for c in found.changes] == [
        ("a/1.jpg", "ant", "bee", "wings, two pairs"),
        ("b/1.jpg", "bee", "", "empty"),
    ]


def test_without_lines_or_without_the_file_nothing_changes(tmp_path: Path) -> None:
    assert corrected(RECORDS, tmp_path / "none.csv", "insects") == (RECORDS, [], 0)
    assert corrected(RECORDS, ROOT / artifacts.CORRECTIONS, "insects") == (RECORDS, [], 0)


def test_lines_for_other_sources_are_passed_over(tmp_path: Path) -> None:
    path = table(tmp_path, "image,label,drop,reason,source\nx,bee,,why,birds\na/1.jpg,bee,,why,insects\n")
    found = corrected(RECORDS, path, "insects")
    assert (len(found.changes), found.passed_over) == (1, 1)
    assert corrected(RECORDS, path, "others").changes == []


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (
            "c/1.jpg,bee,,why\na/1.jpg,,yes,why\nd/1.jpg,,yes,why",
            ["line 2: source insects has no image 'c/1.jpg'", "line 4: "],
        ),
        ("b/notes.txt,,yes,why", ["line 2: source insects has no image 'b/notes.txt'"]),
        ("a/1.jpg,bee,,why\na/2.jpg,,yes,why\na/1.jpg,,yes,why", ["line 4: 'a/1.jpg' is already in line 2"]),
        (
            "a/1.jpg,bee,,why\na/1.jpg,bee,,why\na/1.jpg,ant,,why",
            ["line 3: ", "line 4: 'a/1.jpg' is already in line 2"],
        ),
        ("a/1.jpg,,,why", ["line 2: label '' and drop ''; expected either a label or yes in drop"]),
        ("a/1.jpg,bee,yes,why", ["line 2: label 'bee' and drop 'yes'; expected either"]),
        ("a/1.jpg,,true,why", ["line 2: label '' and drop 'true'; expected either"]),
        ("a/1.jpg,bees,,why", ["line 2: Unknown class 'bees'. Did you mean 'bee'?"]),
        ("a/1.jpg,bee,,", ["line 2: no reason"]),
        ("a/1.jpg,bee,why", ["line 2: expected 4 cells (image,label,drop,reason), found 3"]),
        ('a/1.jpg,"bee,,why', ["not a CSV"]),
    ],
)
def test_wrong_lines_are_told_all_at_once(lines: str, messages: list[str], tmp_path: Path) -> None:
    path = table(tmp_path, f"image,label,drop,reason\n{lines}\n")
    with pytest.raises(DataError) as refused:
        corrected(RECORDS, path, "insects")
    assert str(refused.value).startswith(str(path))
    for message in messages:
        assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: found the columns none. Expected the columns image,label,drop,reason"),
        ("image,label\n", "line 1: found the columns image,label. Expected"),
        ("image;label;drop;reason\n", "line 1: found the columns image;label"),
        ("image,label,drop,reason,by\n", "line 1: found the columns image,label,drop,reason,by"),
        (b"image,label,drop,reason\n\xe9,,yes,why\n", "not text in UTF-8"),
    ],
)
def test_another_table_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        corrected(RECORDS, table(tmp_path, text), "insects")
    assert message in str(refused.value)


def test_a_class_that_corrections_leave_without_an_image_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {"number": 0, "endings": "", "kinds": {}, "first": []}
    for lines, emptied in (("b/1.jpg,ant,,why\n", "'bee'"), ("a/1.jpg,bee,,why\n", "")):
        found = corrected(RECORDS, table(tmp_path, f"image,label,drop,reason\n{lines}"), "insects")
        say_what_was_found("insects", {"strays": nothing, "wrong_endings": nothing}, found)
        assert (f"leaves no image of {emptied}" in capsys.readouterr().err) == bool(emptied)
