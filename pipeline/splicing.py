"""Dictionaries in a model that somebody has loaded, TransformerLens's or transformers' own:

with spliced(model, Splice(dictionary, clamp={12: 5.0})):
    model.generate(tokens)
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.config import UserError
from pipeline.models.hook_points import Sizes, place
from pipeline.models.hooks import Edit, Hooks
from pipeline.models.listening import listen, sizes_of
from stores.dictionary import FeatureDictionary


@dataclass(frozen=True)
class Splice:
    """A dictionary in the place of what it writes.

    keep_error: what it does not reconstruct stays, so that only what is changed below changes the model. scale, add, clamp:
    feature → what its activation is multiplied by, what is added to it after that, and what is put in its place; clamp 0
    ablates. Activations are in units of the model's. positions: of the text, from 0; None: all.
    """

    dictionary: FeatureDictionary
    keep_error: bool = False
    scale: Mapping[int, float] = field(default_factory=dict)
    add: Mapping[int, float] = field(default_factory=dict)
    clamp: Mapping[int, float] = field(default_factory=dict)
    positions: Sequence[int] | None = None

    def check(self) -> None:
        """Raises UserError: the dictionary cannot stand there, or has no such feature."""
        site, n = self.dictionary.site, self.dictionary.d_sae
        if not site.writes:
            raise UserError("the dictionary does not say what it reads and writes: load it with its hook point")
        if self.dictionary.spec.architecture == "bases":
            raise UserError(f"the two bases at {site.name} reconstruct nothing of one another: take one of bases()")
        if any(place(r) > place(w) or (place(r) == place(w) and r != w) for r in site.reads for w in site.writes):
            raise UserError(f"the dictionary at {site.name} reads what comes after it writes: no one pass has both")
        for feature in (*self.scale, *self.add, *self.clamp):
            if not 0 <= feature < n:
                raise UserError(f"the dictionary at {site.name} has features 0 to {n - 1}, got {feature}")

    def changed(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_sae"]:
        """A code, with what becomes of its features."""
        z = z.clone()
        for feature, value in self.scale.items():
            z[..., feature] *= value
        for feature, value in self.add.items():
            z[..., feature] += value
        for feature, value in self.clamp.items():
            z[..., feature] = value
        return z

    def written(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """What it puts where it writes; with keep_error what it adds there."""
        d = self.dictionary
        z = d.encode(x)
        if self.keep_error:
            return (self.changed(z) - z) @ d.W_dec
        y_hat = d.decode(self.changed(z))
        return y_hat + x.float() @ d.W_skip if d.spec.skip else y_hat

    def edits(self, passing: "_Pass") -> Iterator[tuple[str, Edit]]:
        """(hook point, its edit)."""
        site = self.dictionary.site
        widths = self.dictionary.spec.d_writes or (self.dictionary.d_out,)
        starts = [sum(widths[:i]) for i in range(len(widths))]
        for hook_point, start, width in zip(site.writes, starts, widths, strict=True):

            def edit(
                y: Tensor, seen: Mapping[str, Tensor], own: str = hook_point, at: slice = slice(start, start + width)
            ) -> Tensor:
                x = torch.cat([y if h == own else seen[h] for h in site.reads], dim=-1)
                value = self.written(x.float())[..., at]
                value = y + value if self.keep_error else value
                if self.positions is not None:
                    value = torch.where(passing.among(self.positions, y), value, y)
                return value.to(y.dtype)

            yield hook_point, edit


class _Pass:
    """Where in the text a forward pass begins: what a cache holds lies before it."""

    def __init__(self) -> None:
        self.start = 0

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """A forward pre-hook is not enough: HookedTransformer.generate calls forward itself."""
        forward, before = model.forward, vars(model).get("forward")

        @functools.wraps(forward)
        def watched(*given: Any, **options: Any) -> Any:
            self.start = _n_cached(options)
            return forward(*given, **options)

        model.forward = watched
        try:
            yield
        finally:
            del model.forward
            if before is not None:  # of a splicing around this one
                model.forward = before

    def among(self, positions: Sequence[int], y: Float[Tensor, "batch position d"]) -> Tensor:
        """(position, 1): which of this pass are meant."""
        here = torch.arange(self.start, self.start + y.shape[1], device=y.device)
        return torch.isin(here, torch.tensor(list(positions), device=y.device))[:, None]


def _n_cached(options: Mapping[str, Any]) -> int:
    """Positions that lie in the cache that a forward pass is given."""
    cache = next((c for name in ("past_key_values", "past_kv_cache") if (c := options.get(name)) is not None), None)
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    return cache[0].past_keys.shape[1]  # HookedTransformer's, by layers


@contextmanager
def spliced(model: Any, *splices: Splice) -> Iterator[None]:
    """Within it every forward pass of the model, also of generation with a cache, has the dictionaries in it. The model is
    as it was when it is left, in whichever way.

    Raises UserError: a dictionary cannot stand there, two write one hook point, the model has no such hook point or is of a
    kind that is not known.
    """
    sizes, passing = sizes_of(model), _Pass()
    edits: dict[str, Edit] = {}
    for splice in splices:
        splice.check()
        _check_widths(splice.dictionary, sizes)
        for hook_point, edit in splice.edits(passing):
            if hook_point in edits:
                raise UserError(f"two dictionaries write {hook_point}: splice one at a time there")
            edits[hook_point] = edit
    reads = {h for splice in splices for h in splice.dictionary.site.reads}
    hooks = Hooks(sizes, reads, edits, to_end=True)
    with ExitStack() as stack:
        stack.enter_context(passing.watching(model))
        listen(stack, model, hooks, sizes)
        yield


def activations(
    model: Any, dictionary: FeatureDictionary, tokens: Int[Tensor, "batch position"]
) -> Float[Tensor, "batch position d_sae"]:
    """The dictionary's code of a text. Raises UserError as spliced does."""
    sizes = sizes_of(model)
    _check_widths(dictionary, sizes)
    hooks = Hooks(sizes, dictionary.site.reads, None, to_end=True)
    with ExitStack() as stack, torch.no_grad():
        listen(stack, model, hooks, sizes)
        model(tokens)
        return dictionary.encode(torch.cat([hooks.captured[h].float() for h in dictionary.site.reads], dim=-1))


def _check_widths(dictionary: FeatureDictionary, sizes: Sizes) -> None:
    """Raises UserError: the model has no such hook point, or another width there."""
    for what, hook_points, d in (
        ("reads", dictionary.site.reads, dictionary.d_in),
        ("writes", dictionary.site.writes, dictionary.d_out),
    ):
        found = sum(sizes.d(h) for h in hook_points)
        if found != d:
            raise UserError(f"the dictionary {what} d = {d}, the model has {found} at {', '.join(hook_points)}")
