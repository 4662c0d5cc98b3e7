"""Which units a command works on: patterns on SITE/NAME, as the shell has them."""

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.config import UserError

_SHOWN = 3  # of what there is, in a message


@dataclass(frozen=True)
class Only:
    """Units that one of the patterns fits; all where there are none. `SITE/NAME` fits by its two halves, a pattern without
    a slash fits a site or a name. listed_by: the command that lists the units."""

    patterns: tuple[str, ...] = ()
    listed_by: str = "unmix status"

    def has(self, *places: str) -> bool:
        """Whether a unit is asked for. places: SITE/NAME, under each of its names."""
        return not self.patterns or any(_fits(pattern, place) for pattern in self.patterns for place in places)

    def check(self, places: Collection[str]) -> None:
        """Raises UserError: a pattern fits none of the places."""
        for pattern in self.patterns:
            if not any(_fits(pattern, place) for place in places):
                near = difflib.get_close_matches(pattern, sorted(set(places)), _SHOWN, 0.0)
                more = f" and {n} more" if (n := len(set(places)) - len(near)) else ""
                there = f"there are {', '.join(near)}{more}" if near else "there is none"
                raise UserError(f"--only {pattern!r} fits no dictionary; {there}: `{self.listed_by}` lists them")


def _fits(pattern: str, place: str) -> bool:
    site, _, name = place.partition("/")
    of_site, slash, of_name = pattern.partition("/")
    if slash:
        return fnmatchcase(site, of_site) and fnmatchcase(name, of_name)
    return fnmatchcase(site, pattern) or fnmatchcase(name, pattern)
