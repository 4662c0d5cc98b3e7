"""Which dictionaries of two folders are compared."""

from pathlib import Path
from typing import NamedTuple

from pipeline.config import UserError
from pipeline.score.comparison import located
from stores.formats.found import dictionaries_in, is_dictionary, parts_below, read_spec
from stores.formats.stated import Stated
from stores.spec import Spec


class _Place(NamedTuple):
    """below: the names that lead to it from its folder."""

    path: Path
    below: tuple[str, ...]
    spec: Spec


def pairs_of(a: str, b: str, runs: Path) -> list[tuple[str, str]] | None:
    """(path, path) of what is compared where a or b is a folder of several dictionaries; None: neither is.

    Of one and a folder: the one with all that write its width. Of two folders: those that write the same width and are of the
    same site, or, where a site is not known, have the same path below their folders. runs: of RUN/SITE/NAME. Raises
    UserError: there are none.
    """
    inside = [_inside(path) for path in (a, b)]
    if not any(inside):
        return None
    try:
        one, two = ([_place(found, Path(path)) for found in several or [located(path, runs) or Path(path)]]
                    for several, path in zip(inside, (a, b)))  # fmt: skip
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from None
    pairs = [(str(x.path), str(y.path)) for x in one for y in two if _fit(x, y, both=all(inside))]
    if not pairs:
        raise UserError(
            f"{a} and {b} have no dictionaries that write the same width{' at the same site' * all(inside)}: {_said(one)}; "
            f"{_said(two)}"
        )
    return pairs


def _inside(path: str) -> list[Path]:
    """Those of a folder of several; none where the path is a dictionary's, or no folder's."""
    folder = Path(path)
    if not folder.is_dir() or is_dictionary(folder):
        return []
    try:
        return dictionaries_in(folder)
    except ValueError as error:
        raise UserError(str(error)) from None


def _place(found: Path, folder: Path) -> _Place:
    below = parts_below(found, folder) if folder in found.parents else ()
    return _Place(found, below, read_spec(found, Stated()))


def _fit(one: _Place, other: _Place, both: bool) -> bool:
    widths = [place.spec.d_out or place.spec.d_in for place in (one, other)]
    sites = [place.spec.site.name for place in (one, other)]
    alike = sites[0] == sites[1] if all(sites) else one.below == other.below
    return widths[0] == widths[1] and (alike or not both)


def _said(places: list[_Place]) -> str:
    first = places[0]
    more = f", and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{first.path} writes {first.spec.d_out or first.spec.d_in} at {first.spec.site.name or 'an unknown site'}{more}"
