"""Labels by a function of the user's own, which a recipe names as "file.py:function"."""

from collections.abc import Callable

from pipeline.config import UserError
from pipeline.features.labels.python import python_labels
from pipeline.features.labels.spans import Labeller, Spans
from pipeline.own_files import own_module, told

PYTHON = "python"


def labeller(name: str, where: str) -> Labeller:
    """By its name in a recipe: "python", or "file.py:function". where: the setting, with which a message begins.

    Raises UserError: there is no such function; and, when it is called, that it raises anything but ValueError, which
    means that it has no labels for a text, or gives something else than {name: [(start, stop), …]} in the text's bytes.
    """
    if name == PYTHON:
        return python_labels
    own, _ = _own(name, where)

    def labels(document: bytes) -> Spans:
        try:
            return _checked(own(document), len(document))
        except ValueError:
            raise
        except _Wrong as error:
            raise UserError(f"{where}: {name} {error}") from None
        except Exception as error:
            raise UserError(f"{where}: {name} on a text of {len(document)} bytes: {told(error)}") from None

    return labels


def own_digest(name: str, where: str) -> str | None:
    """The sha256 of the user's own file that a name in a recipe names; None: it names none. Raises UserError as labeller."""
    return _own(name, where)[1] if name not in ("", PYTHON) else None


def _own(name: str, where: str) -> tuple[Callable[[bytes], object], str]:
    """(the function, the sha256 of its file)."""
    file, colon, function = name.rpartition(":")
    if not colon:
        raise UserError(f'{where} = {name!r}: expected "{PYTHON}", or a function of yours as "file.py:function"')
    module, found = own_module(file, f"{where}: {file}")
    own = getattr(module, function, None)
    if not callable(own):
        names = ", ".join(n for n, value in vars(module).items() if callable(value)) or "none"
        raise UserError(f"{where}: {file} has no function {function}, its functions are {names}")
    return own, found


class _Wrong(Exception):
    """What a function gave is no spans."""


def _checked(found: object, n_bytes: int) -> Spans:
    expected = 'expected {"name": [(start, stop), …]}, spans of the text\'s bytes'
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise _Wrong(f"gave {str(found)[:40]}, {expected}")
    for name, spans in found.items():
        for span in spans:
            if not (isinstance(span, tuple) and len(span) == 2 and all(isinstance(n, int) for n in span)):
                raise _Wrong(f"gave {str(span)[:40]} for {name!r}, {expected}")
            if not 0 <= span[0] <= span[1] <= n_bytes:
                raise _Wrong(f"gave {span} for {name!r} of a text of {n_bytes} bytes, {expected}")
    return found
