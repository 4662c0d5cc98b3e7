"""Is what is found at one hook point of the residual stream found at the next one, too?

Only axes of one space can be compared: the residual stream's, which attention and MLPs write to. The MLP's own axes are others
in each layer. An autoencoder is compared with its like, of the same method and settings, at the next place in the stream that
has one: at most one pair for each dictionary. Dictionaries of two bases have rows of their own, see layers.py.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.models.hook_points import EMBED, layer_of, place
from pipeline.score.pairs import Entry, Measure, measure, scores_of
from stores.site import Site

_STREAM = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
_WRITE_TO_IT = (EMBED, "hook_attn_out", "hook_mlp_out")
_NOT_LEARNED = ("neuron_basis", "random")  # the same axes at every hook point


def between_sites(entries: Sequence[tuple[Site, Entry]], measured: Measure = measure) -> list[dict[str, Any]]:
    """Rows of pairs, two of each, the first along the pass."""
    rows = []
    for site, a in entries:
        if a.method in _NOT_LEARNED or _hook_point(site, (*_STREAM, *_WRITE_TO_IT)) is None:
            continue
        later = [
            (other, b)
            for other, b in entries
            if (hook_point := _hook_point(other, _STREAM)) is not None
            and place(hook_point) > place(site.name)
            and (b.method, b.settings, b.d_sae, b.d_out) == (a.method, a.settings, a.d_sae, a.d_out)
        ]
        if not later or not a.n_alive:
            continue
        other, b = min(later, key=lambda one: place(one[0].name))
        if b.n_alive:
            there, back = measured(a, b, lambda a=a, b=b: (a.load(), b.load()))
            rows += [
                {"site": f"{site.name} → {other.name}", "relation": "next site", **scores_of(a, b, there)},
                {"site": f"{other.name} → {site.name}", "relation": "previous site", **scores_of(b, a, back)},
            ]
    return rows


def of_one_space(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether axes written at the hook points a can be compared with those at b, as far as names tell."""
    return not a or not b or tuple(a) == tuple(b) or all(_in_stream(h) for h in (*a, *b))


def _in_stream(hook_point: str, kinds: Sequence[str] = (*_STREAM, *_WRITE_TO_IT)) -> bool:
    return hook_point.removeprefix(f"blocks.{layer_of(hook_point)}.") in kinds


def _hook_point(site: Site, kinds: Sequence[str]) -> str | None:
    """The one that is read and written, where it is of these kinds."""
    alone = site.reads == site.writes and len(site.reads) == 1
    return site.reads[0] if alone and _in_stream(site.reads[0], kinds) else None
