"""Labels of Python text that follow from its syntax tree."""

import ast
from collections.abc import Iterator

from pipeline.features.labels.spans import Lines, Span, Spans

NAMES = (
    "docstring", "argument", "keyword argument", "attribute", "called name", "assigned name", "in an import",
    "in a function", "in a class", "in a loop", "in a try block", "in an except block", "in a with block",
    "in an if block", "in a condition", "in a comparison", "in a call's brackets", "in a subscript",
    "in a list, tuple, dict or set", "in a comprehension", "in a lambda", "in a return statement",
    "in a raise statement", "in an assignment", "in a default value", "in an annotation",
)  # fmt: skip
_WHOLE = {
    ast.Import: "in an import", ast.ImportFrom: "in an import", ast.Compare: "in a comparison",
    ast.List: "in a list, tuple, dict or set", ast.Tuple: "in a list, tuple, dict or set",
    ast.Dict: "in a list, tuple, dict or set", ast.Set: "in a list, tuple, dict or set",
    ast.ListComp: "in a comprehension", ast.SetComp: "in a comprehension", ast.DictComp: "in a comprehension",
    ast.GeneratorExp: "in a comprehension", ast.Lambda: "in a lambda", ast.Return: "in a return statement",
    ast.Raise: "in a raise statement", ast.Assign: "in an assignment", ast.AugAssign: "in an assignment",
    ast.AnnAssign: "in an assignment",
}  # fmt: skip
_BODIES = {
    ast.FunctionDef: "in a function", ast.AsyncFunctionDef: "in a function", ast.ClassDef: "in a class",
    ast.For: "in a loop", ast.AsyncFor: "in a loop", ast.While: "in a loop", ast.If: "in an if block",
    ast.Try: "in a try block", ast.TryStar: "in a try block", ast.ExceptHandler: "in an except block",
    ast.With: "in a with block", ast.AsyncWith: "in a with block",
}  # fmt: skip
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def syntax_labels(tree: ast.Module, lines: Lines) -> Spans:
    """The labels NAMES of a text whose tree this is."""
    found: Spans = {name: [] for name in NAMES}
    for node in _nodes(tree):
        if name := _WHOLE.get(type(node)):
            found[name].append(_span(node, lines))
        if name := _BODIES.get(type(node)):
            body = node.body  # type: ignore[attr-defined]
            found[name].append((_span(body[0], lines)[0], _span(body[-1], lines)[1]))
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            found["docstring"].append(_span(node.body[0], lines))
        for name, part in _parts(node):
            found[name].append(_span(part, lines))
        for name, span in _names(node, lines):
            found[name].append(span)
    return found


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All but those in f-strings, whose places Python 3.11 does not tell."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if type(node).__name__ not in ("JoinedStr", "TemplateStr"):
            waiting += ast.iter_child_nodes(node)


def _span(node: ast.AST, lines: Lines) -> Span:
    start = lines.byte_of_bytes(node.lineno, node.col_offset)  # type: ignore[attr-defined]
    return start, lines.byte_of_bytes(node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]


def _parts(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Nodes below this one that have a label for what they are to it."""
    if isinstance(node, (ast.If, ast.While, ast.IfExp, ast.Assert)):
        yield "in a condition", node.test
    elif isinstance(node, ast.comprehension):
        yield from (("in a condition", test) for test in node.ifs)
    elif isinstance(node, ast.arguments):
        yield from (("in a default value", d) for d in (*node.defaults, *node.kw_defaults) if d is not None)
    elif isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
        yield "in an annotation", node.annotation
    elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.returns is not None:
        yield "in an annotation", node.returns


def _names(node: ast.AST, lines: Lines) -> Iterator[tuple[str, Span]]:
    if isinstance(node, ast.arg):
        yield "argument", _first(_span(node, lines), node.arg)
    elif isinstance(node, ast.keyword) and node.arg is not None:
        yield "keyword argument", _first(_span(node, lines), node.arg)
    elif isinstance(node, ast.Attribute):
        yield "attribute", _last(_span(node, lines), node.attr)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield "assigned name", _span(node, lines)
    elif isinstance(node, ast.Subscript):
        yield "in a subscript", (_span(node.value, lines)[1], _span(node, lines)[1])
    elif isinstance(node, ast.Call):
        inner = _span(node.func, lines)
        yield "in a call's brackets", (inner[1], _span(node, lines)[1])
        if isinstance(node.func, ast.Name):
            yield "called name", inner
        elif isinstance(node.func, ast.Attribute):
            yield "called name", _last(inner, node.func.attr)


def _first(span: Span, name: str) -> Span:
    return span[0], span[0] + len(name.encode())


def _last(span: Span, name: str) -> Span:
    return span[1] - len(name.encode()), span[1]
