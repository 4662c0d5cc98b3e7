"""Exact labels of Python text, from the standard library's tokenize and ast."""

import ast
import re
import tokenize
import warnings

from pipeline.features.labels import lexical, syntax
from pipeline.features.labels.spans import KNOWN, Lines, Spans

PYTHON_LABELS = (*lexical.NAMES, *syntax.NAMES)
_PARSES = 64  # attempts at a document that was cut
_TOP_LEVEL = re.compile(r"^(?=[^\s)\]}#])", re.MULTILINE)


def python_labels(document: bytes) -> Spans:
    """Where in a document each of PYTHON_LABELS holds, and where that is known.

    Of a document that was cut, whole statements of its outermost level are known: the longest run of them that parses.
    Line ends may be of any kind. Raises ValueError: it is no UTF-8, or no run of statements parses.
    """
    text = _text(document)
    start, stop, tree = _whole_statements(text)
    text, before = text[start:stop], len(text[:start].encode())
    lines = Lines(text)
    try:
        found = {**lexical.lexical_labels(text, lines), **syntax.syntax_labels(tree, lines)}
    except (SyntaxError, tokenize.TokenError) as error:  # tokenize is stricter than the parser here and there
        raise ValueError(f"tokenize: {error}") from None
    moved = {name: [(a + before, b + before) for a, b in spans] for name, spans in found.items()}
    return {**moved, KNOWN: [(before, before + lines.starts[-1])]}


def _text(document: bytes) -> str:
    """With as many bytes, and newlines for line ends: a character that was cut at the end is left out."""
    whole = document.replace(b"\r\n", b" \n").replace(b"\r", b"\n")
    try:
        return whole.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":
            raise
        return whole[: error.start].decode()


def _whole_statements(text: str) -> tuple[int, int, ast.Module]:
    """(start, stop, tree) of the longest run of statements of the outermost level that was found to parse."""
    lines = [match.start() for match in _TOP_LEVEL.finditer(text)]
    n, best, found = 0, (0, 0), None
    for start in dict.fromkeys((0, *lines)):
        stop = len(text)
        while stop - start > best[1] - best[0] and n < _PARSES:
            n += 1
            tree, wrong = _parsed(text[start:stop])
            if tree is not None and tree.body:
                best, found = (start, stop), tree
            stop = max((line for line in lines if line <= start + wrong and line < stop), default=0)
    if found is None:
        raise ValueError("no Python statement parses")
    return *best, found


def _parsed(text: str) -> tuple[ast.Module | None, int]:
    """The tree, or None and where the line begins that does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in strings
            return ast.parse(text), 0
    except SyntaxError as error:
        return None, sum(len(line) + 1 for line in text.split("\n")[: (error.lineno or 1) - 1])
    except (ValueError, RecursionError, MemoryError):  # a zero byte; brackets that are too deep
        return None, 0
