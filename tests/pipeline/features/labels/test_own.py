"""Labels by a user's own function, and what is told when it is wrong."""

from pathlib import Path

import pytest

from pipeline.config import UserError
from pipeline.features.labels.own import labeller
from pipeline.features.labels.python import python_labels

OWN = """
def vowels(document):
    return {"vowel": [(i, i + 1) for i, byte in enumerate(document) if byte in b"aeiou"]}

def none(document):
    raise ValueError("no labels")

def broken(document):
    return document["x"]

def shape(document):
    return {"vowel": [3]}

def beyond(document):
    return {"vowel": [(2, 9)]}

def nothing(document):
    return None
"""


def named(function: str, tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(OWN)
    return f"{tmp_path / 'mine.py'}:{function}"


def test_a_function_of_the_users_gives_labels(tmp_path: Path) -> None:
    assert labeller(named("vowels", tmp_path), "report.labels")(b"cafe") == {"vowel": [(1, 2), (3, 4)]}
    with pytest.raises(ValueError, match="no labels"):
        labeller(named("none", tmp_path), "report.labels")(b"cafe")


def test_python_is_built_in() -> None:
    assert labeller("python", "report.labels") is python_labels


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("other", "has no function other, its functions are vowels, none, broken, shape, beyond, nothing$"),
        ("broken", "broken on a text of 4 bytes: TypeError: "),
        ("shape", "shape gave 3 for 'vowel', expected"),
        ("beyond", r"beyond gave \(2, 9\) for 'vowel' of a text of 4 bytes, expected"),
        ("nothing", "nothing gave None, expected"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(function: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"^report.labels: [^\n]*{message}"):
        labeller(named(function, tmp_path), "report.labels")(b"cafe")


@pytest.mark.parametrize(
    ("name", "message"),
    [("pyhton", 'expected "python", or a function of yours as "file.py:function"'), ("no.py:f", "no.py: no such file")],
)
def test_a_name_of_nothing_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        labeller(name, "report.labels")
