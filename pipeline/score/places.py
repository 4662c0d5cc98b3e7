"""Where hook points lie in a forward pass, by TransformerLens's names alone: no model is asked."""

import re

from pipeline.models.hook_points import SITES
from stores.site import Site


def layer_of(hook_point: str) -> int:
    """-1 before the first layer."""
    found = re.match(r"blocks\.(\d+)\.", hook_point)
    return int(found[1]) if found else -1


def place(hook_point: str) -> tuple[int, int]:
    """What is larger comes later in the pass."""
    found = re.match(rf"blocks\.(\d+)\.({'|'.join(map(re.escape, SITES))})(\.\d+)?$", hook_point)  # a head: hook_z.3
    return (layer_of(hook_point), SITES.index(found[2])) if found else (layer_of(hook_point), -1)


def written_too_early(site: Site) -> tuple[str, str] | None:
    """(what is written, what is read), where the first lies before the second in the pass: a dictionary can be spliced in
    there only if it reads another pass than the one that it changes."""
    first, last = min(site.writes, key=place), max(site.reads, key=place)
    return (first, last) if place(first) < place(last) else None
