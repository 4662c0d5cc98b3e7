"""Labels of Python text that follow from its tokens."""

import io
import keyword
import re
import tokenize
from builtins import __dict__ as _builtins
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.features.labels.spans import Lines, Span, Spans

KEYWORDS = (
    "def", "class", "return", "if", "else", "for", "in", "is", "not", "and", "or", "import", "from", "None", "raise",
    "try", "elif", "except", "with",
)  # fmt: skip
DEPTHS = (1, 2, 3)
COMPARISONS = frozenset(("==", "!=", "<", ">", "<=", ">="))
NO_OPERATORS = frozenset("()[]{},:.;") | {"...", "->"}
BUILTINS = frozenset(name for name in _builtins if not keyword.iskeyword(name) and not name.startswith("_"))
_LAYOUT = (tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER)
_OPENING = re.compile("[A-Za-z]*('''|\"\"\"|'|\")")

NAMES = (
    "keyword", *(f"keyword {word}" for word in KEYWORDS), "True or False", "operator", "comparison operator",
    "equals sign", "comma", "colon", "dot", "opening bracket", "closing bracket", "opening parenthesis",
    "closing parenthesis", "number", "string", "opening quote", "closing quote", "triple quote", "f-string", "comment",
    "comment sign", "name", "self", "name of a builtin", "name defined by def", "name defined by class",
    "capitalised name", "all-capitals name", "snake_case name", "dunder name", "private name", "decorator",
    "first on its line", "last on its line", "newline", "end of a statement", "blank line", "indentation",
    *(f"indented {d} or more" for d in DEPTHS), *(f"in {d} or more brackets" for d in DEPTHS),
)  # fmt: skip


class _Lexeme(NamedTuple):
    """A token of Python; what 3.12 and later divide f-strings into is one string again."""

    kind: int
    text: str
    start: int
    stop: int
    row: int
    last_row: int


def lexical_labels(text: str, lines: Lines) -> Spans:
    """The labels NAMES of a text that parses."""
    found: Spans = {name: [] for name in NAMES}
    lexemes = list(_lexemes(text, lines))
    _layout(lexemes, lines, found)
    for before, lexeme in zip([None, *lexemes], lexemes):
        span, word = (lexeme.start, lexeme.stop), lexeme.text
        if lexeme.kind == tokenize.NAME:
            _name(word, span, before.text if before else "", found)
        elif lexeme.kind == tokenize.OP:
            _operator(word, span, found)
        elif lexeme.kind == tokenize.NUMBER:
            found["number"].append(span)
        elif lexeme.kind == tokenize.COMMENT:
            found["comment"].append(span)
            found["comment sign"].append((lexeme.start, lexeme.start + 1))
        elif lexeme.kind == tokenize.STRING:
            _string(word, span, found)
    return found


def _lexemes(text: str, lines: Lines) -> Iterator[_Lexeme]:
    inside, begun = 0, None  # f-strings within f-strings
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("FSTRING_START", "TSTRING_START"):
            begun, inside = begun or token, inside + 1
        if not inside:
            start = lines.byte(*token.start)
            stop = start if token.type in _LAYOUT and not token.string else lines.byte(*token.end)
            if token.type in (tokenize.NEWLINE, tokenize.NL):
                stop = start + len(token.string)
            yield _Lexeme(token.type, token.string, start, stop, token.start[0], token.end[0])
        elif kind in ("FSTRING_END", "TSTRING_END"):
            inside -= 1
            if not inside and begun:
                whole = begun.string + token.string  # of what is between, nothing is asked
                start, stop = lines.byte(*begun.start), lines.byte(*token.end)
                yield _Lexeme(tokenize.STRING, whole, start, stop, begun.start[0], token.end[0])
                begun = None


def _name(word: str, span: Span, before: str, found: Spans) -> None:
    if keyword.iskeyword(word):
        found["keyword"].append(span)
        if word in KEYWORDS:
            found[f"keyword {word}"].append(span)
        elif word in ("True", "False"):
            found["True or False"].append(span)
        return
    dunder = word.startswith("__") and word.endswith("__") and len(word) > 4
    which = {
        "name": True,
        "self": word == "self",
        "name of a builtin": word in BUILTINS and before != ".",
        "name defined by def": before == "def",
        "name defined by class": before == "class",
        "capitalised name": word[0].isupper() and not word.isupper(),
        "all-capitals name": len(word) > 1 and word.isupper(),
        "snake_case name": "_" in word.strip("_") and word.islower(),
        "dunder name": dunder,
        "private name": word.startswith("_") and len(word) > 1 and not dunder,
    }
    for name, holds in which.items():
        if holds:
            found[name].append(span)


def _operator(word: str, span: Span, found: Spans) -> None:
    which = {
        "operator": word not in NO_OPERATORS,
        "comparison operator": word in COMPARISONS,
        "equals sign": word == "=",
        "comma": word == ",",
        "colon": word == ":",
        "dot": word == ".",
        "opening bracket": word in "([{",
        "closing bracket": word in ")]}",
        "opening parenthesis": word == "(",
        "closing parenthesis": word == ")",
    }
    for name, holds in which.items():
        if holds:
            found[name].append(span)


def _string(word: str, span: Span, found: Spans) -> None:
    opening = _OPENING.match(word)
    assert opening  # tokenize found it to be a string
    start, stop = span
    found["string"].append(span)
    quotes = (start, start + opening.end()), (stop - len(opening[1]), stop)
    found["opening quote"].append(quotes[0])
    found["closing quote"].append(quotes[1])
    if len(opening[1]) == 3:
        found["triple quote"] += quotes
    if "f" in opening[0].lower():
        found["f-string"].append(span)


def _layout(lexemes: list[_Lexeme], lines: Lines, found: Spans) -> None:
    """Lines, indentation, brackets, decorators."""
    indented: list[int] = []
    brackets: list[int] = []
    statement = end = row = 0  # where the statement begins, where the last one ended, the last row with something on it
    fresh, decorated = True, False
    before = None
    for lexeme in lexemes:
        line = lines.starts[min(lexeme.row, len(lines.lines)) - 1]
        if lexeme.kind == tokenize.INDENT:
            indented.append(line)
        elif lexeme.kind == tokenize.DEDENT:
            start = indented.pop()
            if len(indented) < DEPTHS[-1]:
                found[f"indented {len(indented) + 1} or more"].append((start, end))
        elif lexeme.kind in (tokenize.NEWLINE, tokenize.NL):
            found["newline"].append((lexeme.start, lexeme.stop))
            if lexeme.row != row:
                found["blank line"].append((lexeme.start, lexeme.stop))
            elif before:
                found["last on its line"].append((before.stop - 1, before.stop))
            if lexeme.kind == tokenize.NEWLINE:
                found["end of a statement"].append((lexeme.start, lexeme.stop))
                if decorated:
                    found["decorator"].append((statement, lexeme.start))
                end, fresh = lexeme.stop, True
        elif lexeme.kind != tokenize.ENDMARKER:
            if lexeme.row != row:
                found["first on its line"].append((lexeme.start, lexeme.start + 1))
                found["indentation"].append((line, lexeme.start))
            if fresh and lexeme.kind != tokenize.COMMENT:
                statement, fresh, decorated = lexeme.start, False, lexeme.text == "@"
            if lexeme.kind == tokenize.OP and lexeme.text in "([{":
                brackets.append(lexeme.start)
            elif lexeme.kind == tokenize.OP and lexeme.text in ")]}":
                start = brackets.pop()
                if len(brackets) < DEPTHS[-1]:
                    found[f"in {len(brackets) + 1} or more brackets"].append((start, lexeme.stop))
            before, row = lexeme, lexeme.last_row
