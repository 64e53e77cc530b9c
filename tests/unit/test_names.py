"""Names: what is escaped, what looks alike."""

import random
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.pipeline.names import class_order, escaped, is_litter, look_alikes, name_problem, one_form

ANY = st.text(st.characters(exclude_categories=()))  # lone surrogates, too


@given(ANY)
def test_what_is_escaped_holds_nothing_that_hides_or_acts(name: str) -> None:
    shown = escaped(name)
    assert not {unicodedata.category(sign) for sign in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(shown) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\ufeff")
    assert escaped(shown) == shown
    shown.encode()


@given(st.text(st.characters(categories=("L", "N", "P", "S")) | st.just(" ")))
def test_letters_figures_and_punctuation_of_any_script_stay(name: str) -> None:
    assert escaped(name) == name
    assert name_problem(name) == ""


def test_joined_letters_and_pictures_are_no_problem() -> None:
    for name in ("می\u200cخواهم", "👩\u200d🔬", "क्\u200dष", "žába 1", "写真"):
        assert escaped(name) == name


def test_bytes_and_controls_are_written_as_codes() -> None:
    assert escaped("a\x00\x1b\udce9\u202e\U000e0001\n", keep="\n") == "a\\x00\\x1b\\xe9\\u202e\\U000e0001\n"


def test_names_alike_are_found() -> None:
    names = ["cat", "Cat", "dog", "dog ", "owl", "STRASSE", "straße", "ﬁn", "fin"]
    assert look_alikes(names) == [["Cat", "cat"], ["STRASSE", "straße"], ["dog", "dog "], ["fin", "ﬁn"]]
    assert look_alikes(["1", "10", "a", "b"]) == []


@pytest.mark.slow
@given(st.text())
def test_one_form_is_one(name: str) -> None:
    assert one_form(unicodedata.normalize("NFD", name)) == one_form(name) == one_form(one_form(name))


def test_litter_is_known_in_any_case() -> None:
    assert all(map(is_litter, ("@eaDir", "THUMBS.DB", "._1.jpg", "Lost+Found", "Icon\r", ".ipynb_checkpoints")))
    assert all(map(is_litter, (".Trash-1000", ".nfs0000ab", "~$labels.xlsx")))
    assert not any(map(is_litter, ("cat", "icon", "recycle", "thumbs", "e_a")))


def test_numbers_in_names_of_classes_count_as_numbers() -> None:
    assert class_order(map(str, range(12, 0, -1))) == [str(number) for number in range(1, 13)]
    assert class_order(["grade 10", "grade 9", "grade 1b", "grade 1"]) == ["grade 1", "grade 1b", "grade 9", "grade 10"]
    assert class_order(["0.5", "0.25", "-1", "+2", "10"]) == ["-1", "0.25", "0.5", "+2", "10"]
    assert class_order(["1.10", "1.9", "v"]) == ["1.9", "1.10", "v"]  # no numbers: versions
    assert class_order(["01", "1", "001"]) == ["001", "01", "1"]
    assert class_order(["b", "a", "b", "B"]) == ["B", "a", "b"]


@given(st.lists(st.text(st.sampled_from("a9²٣.+-0 é")), unique=True), st.randoms())
def test_the_order_of_classes_is_one(names: list[str], rng: random.Random) -> None:
    ordered = class_order(names)
    assert sorted(ordered) == sorted(names)
    assert class_order(rng.sample(names, len(names))) == ordered


@given(st.lists(st.text(st.characters(exclude_categories=("N",)))))
def test_names_without_figures_are_in_the_order_of_text(names: list[str]) -> None:
    assert class_order(names) == sorted(set(names))
