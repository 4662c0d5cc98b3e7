"""Where hook points lie in a forward pass, by TransformerLens's names alone: no model is asked."""

import re
from collections.abc import Sequence

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


def labels(hook_points: Sequence[str]) -> list[str]:
    """Short names: the layer alone where nothing else differs."""
    kinds = {hook_point.removeprefix(f"blocks.{layer_of(hook_point)}.") for hook_point in hook_points}
    if len(kinds) == 1 and all(layer_of(h) >= 0 for h in hook_points):
        return [f"layer {layer_of(h)}" for h in hook_points]
    return [h.removeprefix("blocks.") for h in hook_points]
