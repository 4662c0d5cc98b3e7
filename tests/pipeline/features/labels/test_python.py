"""The labels of Python text: one file of which every label is known, files that were cut, other line ends."""

import inspect
import textwrap

import numpy as np
import pytest

from pipeline.features.labels.python import PYTHON_LABELS, python_labels
from pipeline.features.labels.spans import KNOWN

SAMPLE = '''"""Top."""
import os.path as p
from re import sub

MAX_SIZE: int = 0x10

@p.cached
class Walk(Base):
    "In é."

    def __init__(self, n_max, *, key=None) -> bool:
        for i in range(n_max):  # ünd so
            if i >= 3 and not self._done[i]:
                raise ValueError(f"{i!r} x", len(key))
        try:
            return {i: [j for j in (1,) if j]}
        except OSError:
            with open(key, mode="rb") as f:
                x = lambda q: q != -1
        return True
'''
RAISE = 'raise ValueError(f"{i!r} x", len(key))'
EXPECTED = {  # words, or whole pieces in a list
    "keyword": "import as from import class def None for in if and not raise try return for in if except with as lambda "
    "return True",
    "keyword def": "def", "keyword class": "class", "keyword return": "return return", "keyword if": "if if",
    "keyword else": "", "keyword for": "for for", "keyword in": "in in", "keyword is": "", "keyword not": "not",
    "keyword and": "and", "keyword or": "", "keyword import": "import import", "keyword from": "from",
    "keyword None": "None", "keyword raise": "raise", "keyword try": "try",
    "keyword elif": "", "keyword except": "except", "keyword with": "with", "True or False": "True",
    "operator": "= @ * = >= = = != -", "comparison operator": ">= !=", "equals sign": "= = = =",
    "comma": ", , , , , ,", "colon": ": : : : : : : : : :", "dot": ". . .", "opening bracket": "( ( ( [ ( ( { [ ( (",
    "closing bracket": ") ) ) ] ) ) ) ] } )", "opening parenthesis": "( ( ( ( ( ( (",
    "closing parenthesis": ") ) ) ) ) ) )", "number": "0x10 3 1 1",
    "string": ['"""Top."""', '"In é."', 'f"{i!r} x"', '"rb"'],
    "opening quote": '""" " f" "', "closing quote": '""" " " "', "f-string": ['f"{i!r} x"'], "comment": ["# ünd so"],
    "triple quote": '""" """', "comment sign": "#",
    "name": "os path p re sub MAX_SIZE int p cached Walk Base __init__ self n_max key bool i range n_max i self _done i "
    "ValueError len key i j j j OSError open key mode f x q q",
    "self": "self self", "name of a builtin": "int bool range ValueError len OSError open",
    "name defined by def": "__init__", "name defined by class": "Walk",
    "capitalised name": "Walk Base ValueError OSError", "all-capitals name": "MAX_SIZE", "snake_case name": "n_max n_max",
    "dunder name": "__init__", "private name": "_done", "decorator": "@p.cached",
    "first on its line": '" i f M @ c " d f i r t r e w x r', "last on its line": '" p b 0 d : " : o : ) : } : : 1 e',
    "newline": ["\n"] * 20, "end of a statement": ["\n"] * 17, "blank line": ["\n"] * 3,
    "docstring": ['"""Top."""', '"In é."'], "argument": "self n_max key q", "keyword argument": "mode",
    "attribute": "cached _done", "called name": "range ValueError len open", "assigned name": "MAX_SIZE i j f x",
    "in an import": ["import os.path as p", "from re import sub"],
    "in a loop": [SAMPLE[SAMPLE.index("if i >=") : SAMPLE.index("\n        try")]],
    "in a function": [SAMPLE[SAMPLE.index("for i") : -1]], "in a class": [SAMPLE[SAMPLE.index('"In') : -1]],
    "in a try block": ["return {i: [j for j in (1,) if j]}"],
    "in an except block": [SAMPLE[SAMPLE.index("with open") : SAMPLE.index("\n        return True")]],
    "in a with block": ["x = lambda q: q != -1"], "in an if block": [RAISE],
    "in a condition": ["i >= 3 and not self._done[i]", "j"], "in a comparison": ["i >= 3", "q != -1"],
    "in a call's brackets": ["(n_max)", '(f"{i!r} x", len(key))', "(key)", '(key, mode="rb")'], "in a subscript": "[i]",
    "in a list, tuple, dict or set": ["{i: [j for j in (1,) if j]}", "(1,)"],
    "in a comprehension": ["[j for j in (1,) if j]"], "in a lambda": ["lambda q: q != -1"],
    "in a return statement": ["return {i: [j for j in (1,) if j]}", "return True"], "in a raise statement": [RAISE],
    "in an assignment": ["MAX_SIZE: int = 0x10", "x = lambda q: q != -1"], "in a default value": "None",
    "in an annotation": "int bool",
    "in 1 or more brackets": [
        "(Base)", "(self, n_max, *, key=None)", "(n_max)", "[i]", '(f"{i!r} x", len(key))',
        "{i: [j for j in (1,) if j]}", '(key, mode="rb")',
    ],
    "in 2 or more brackets": ["(key)", "[j for j in (1,) if j]"], "in 3 or more brackets": "(1,)",
    "indented 1 or more": [SAMPLE[SAMPLE.index('    "In') :]],
    "indented 2 or more": [SAMPLE[SAMPLE.index("        for i") :]],
    "indented 3 or more": [
        SAMPLE[SAMPLE.index("            if i") : SAMPLE.index("        try")],
        "            return {i: [j for j in (1,) if j]}\n",
        SAMPLE[SAMPLE.index("            with") : SAMPLE.index("        return True")],
    ],
    "indentation": [*[""] * 6, *(" " * n for n in (4, 4, 8, 12, 16, 8, 12, 8, 12, 16, 8))],
}  # fmt: skip


def words(data: bytes, spans: list[tuple[int, int]]) -> list[str]:
    return [data[a:b].decode() for a, b in sorted(spans)]


@pytest.mark.parametrize("name", PYTHON_LABELS)
def test_each_label_holds_where_it_is_said_to(name: str) -> None:
    data, expected = SAMPLE.encode(), EXPECTED[name]
    assert words(data, python_labels(data)[name]) == (expected.split() if isinstance(expected, str) else expected)


def masks(data: bytes) -> dict[str, np.ndarray]:
    found = {}
    for name, spans in python_labels(data).items():
        found[name] = np.zeros(len(data), bool)
        for a, b in spans:
            found[name][a:b] = True
    return found


@pytest.mark.parametrize(("start", "stop"), [(0, 0.6), (0.35, 1), (0.2, 0.8)])
def test_of_a_file_that_was_cut_whole_statements_have_the_labels_that_they_have_in_it(
    start: float, stop: float
) -> None:
    data = inspect.getsource(inspect).encode()  # the module's own text
    a, b = (data.rfind(b"\n", 0, int(len(data) * share)) + 1 for share in (start, stop))
    cut, whole = masks(data[a:b]), masks(data)
    known = cut[KNOWN]
    assert known.mean() > 0.8
    for name in PYTHON_LABELS:
        assert np.array_equal(cut[name][known], whole[name][a:b][known]), name


def test_any_line_ends_mean_the_same() -> None:
    lines = SAMPLE.encode().split(b"\n")
    n = {end: [len(python_labels(end.join(lines))[name]) for name in PYTHON_LABELS] for end in (b"\n", b"\r\n", b"\r")}
    assert n[b"\r\n"] == n[b"\r"] == n[b"\n"]


def test_a_character_that_was_cut_at_the_end_is_left_out() -> None:
    data = b"x = 1\n# " + "é".encode()
    assert words(data[:-1], python_labels(data[:-1])["comment"]) == ["# "]


@pytest.mark.parametrize("data", [b"what is this?", b"\xff = 1", b"a = '\0'", b"(" * 5000])
def test_what_is_no_python_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="parses|decode"):
        python_labels(data)


def test_a_fragment_of_a_string_is_no_statement() -> None:
    with pytest.raises(ValueError, match="parses"):
        python_labels(textwrap.indent("'what\\n'\n'is'", "    ").encode())
