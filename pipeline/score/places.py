"""Where hook points lie in a forward pass, by TransformerLens's names alone: no model is asked."""

from collections.abc import Sequence

from pipeline.models.hook_points import layer_of, place
from stores.site import Site


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
