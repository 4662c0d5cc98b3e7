"""Dictionaries in a model that somebody has loaded, TransformerLens's or transformers' own:

with spliced(model, Splice(first, clamp={12: 5.0}), Splice(second, keep_error=True, scale={3: 0.0}, positions=[4])):
    model.generate(tokens)

Of one dictionary the same is dictionary.spliced(model, clamp={12: 5.0}).
"""

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.config import UserError
from pipeline.models.hook_points import Sizes, place
from pipeline.models.hooks import Edit, Hooks
from pipeline.models.listening import listen, sizes_of, tokens_of
from pipeline.models.protocol import LanguageModel
from stores.dictionary import FeatureDictionary


@dataclass(frozen=True)
class Splice:
    """A dictionary in the place of what it writes.

    keep_error: what it does not reconstruct stays, so that only what is changed below changes the model. scale, add, clamp:
    feature → what its activation is multiplied by, what is added to it after that, and what is put in its place; clamp 0
    ablates. Activations are in units of the model's. positions: of the tokens, from 0, BOS and padding counted; None: all.
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
        _check_site(self.dictionary)
        if self.dictionary.spec.architecture == "bases":
            raise UserError(f"the two bases at {site.name} reconstruct nothing of one another: take one of bases()")
        if any(position < 0 for position in self.positions or ()):
            raise UserError(f"positions are counted from 0, got {min(self.positions or ())}")
        for feature in (*self.scale, *self.add, *self.clamp):
            if not 0 <= feature < n:
                raise UserError(f"the dictionary at {site.name} has features 0 to {n - 1}, got {feature}")

    @property
    def late(self) -> bool:
        """Whether it reads what comes after it writes, as a crosscoder does: then it reads a pass of its own before."""
        site = self.dictionary.site
        return any(place(r) > place(w) or (place(r) == place(w) and r != w) for r in site.reads for w in site.writes)

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
        site, device = self.dictionary.site, self.dictionary.W_dec.device
        widths = self.dictionary.spec.d_writes or (self.dictionary.d_out,)
        starts = [sum(widths[:i]) for i in range(len(widths))]
        first = min(site.writes, key=lambda h: (place(h), len(h), h))
        found: list[Tensor] = []  # what this pass writes, at all hook points

        def edit(y: Tensor, seen: Mapping[str, Tensor], own: str, at: slice) -> Tensor:
            if passing.looking:
                return y
            if own == first:
                reads = [passing.before(h) if self.late else y if h == own else seen[h] for h in site.reads]
                found[:] = [self.written(torch.cat(reads, dim=-1).float().to(device))]
            value = found[0][..., at].to(y.device)
            value = y + value if self.keep_error else value
            if self.positions is not None:
                value = torch.where(passing.among(self.positions, y), value, y)
            return value.to(y.dtype)

        for hook_point, start, width in zip(site.writes, starts, widths, strict=True):
            yield hook_point, functools.partial(edit, own=hook_point, at=slice(start, start + width))


class _Pass:
    """The forward pass of the model that is under way."""

    def __init__(self) -> None:
        self.start = 0  # where in the text it begins: what a cache holds lies before it
        self.looking = False  # whether nothing is changed, since a dictionary that writes early reads this pass
        self.clean: dict[str, Tensor] = {}  # what that pass has where such a dictionary reads

    def before(self, hook_point: str) -> Tensor:
        """What the pass without a change has there. Raises UserError: there was none."""
        if hook_point not in self.clean:
            raise UserError(f"{hook_point} is read before it is there: call the model itself, not a part of it")
        return self.clean[hook_point]

    @contextmanager
    def watching(self, model: Any, captured: Mapping[str, Tensor], late: Collection[str] = ()) -> Iterator[None]:
        """late: names of dictionaries that read a pass in which nothing is changed; captured: what they read, of each pass.

        A forward pre-hook is not enough: HookedTransformer.generate calls forward itself.
        """
        inner = getattr(model, "original_model", model)  # of a TransformerBridge
        forward, before = inner.forward, vars(inner).get("forward")

        @functools.wraps(forward)
        def watched(*given: Any, **options: Any) -> Any:
            try:
                self.start = _n_cached(options)
                if late:
                    self._look(forward, given, options, captured, late)
                return forward(*given, **options)
            finally:
                self.start, self.clean = 0, {}

        inner.forward = watched
        try:
            yield
        finally:
            del inner.forward
            if before is not None:  # of a splicing around this one
                inner.forward = before

    def _look(
        self,
        forward: Any,
        given: Any,
        options: Mapping[str, Any],
        captured: Mapping[str, Tensor],
        late: Collection[str],
    ) -> None:
        if self.start:
            raise UserError(
                f"the dictionary at {next(iter(late))} reads what comes after it writes, which takes a pass of the whole text "
                "before: generate without a cache (transformers: use_cache=False, TransformerLens: use_past_kv_cache=False)"
            )
        self.looking = True
        try:
            forward(*given, **{name: value for name, value in options.items() if name not in _CACHES})
            self.clean = dict(captured)
        finally:
            self.looking = False

    def among(self, positions: Sequence[int], y: Float[Tensor, "batch position d"]) -> Tensor:
        """(position, 1): which of this pass are meant."""
        here = torch.arange(self.start, self.start + y.shape[1], device=y.device)
        return torch.isin(here, torch.tensor(list(positions), device=y.device))[:, None]


_CACHES = ("past_key_values", "past_kv_cache")  # transformers' option, and HookedTransformer's


def _n_cached(options: Mapping[str, Any]) -> int:
    """Positions that lie in the cache that a forward pass is given."""
    cache = next((c for name in _CACHES if (c := options.get(name)) is not None), None)
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length())
    return cache[0].past_keys.shape[1]  # HookedTransformer's, by layers


@contextmanager
def spliced(model: Any, *splices: Splice) -> Iterator[None]:
    """Within it every forward pass of the model, also of generation with a cache, has the dictionaries in it. The model is
    as it was when it is left, in whichever way. A dictionary that reads what comes after it writes, such as a crosscoder,
    reads a pass in which nothing is changed: two passes are made, and generation takes no cache.

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
                raise UserError(f"two dictionaries write {hook_point}: splice one within the other's with")
            edits[hook_point] = edit
    reads = {h for splice in splices for h in splice.dictionary.site.reads}
    hooks = Hooks(sizes, reads, edits, to_end=True)
    with ExitStack() as stack:
        late = [splice.dictionary.site.name for splice in splices if splice.late]
        stack.enter_context(passing.watching(model, hooks.captured, late))
        listen(stack, model, hooks, sizes)
        yield


def activations(
    model: Any, dictionary: FeatureDictionary, text: str | Int[Tensor, "batch position"], tokenizer: Any = None
) -> Float[Tensor, "batch position d_sae"]:
    """The dictionary's code of a text, or of tokens.

    A text begins with BOS. tokenizer: transformers' or a tokenizers.Tokenizer; without one, TransformerLens's models have their
    own. Raises UserError as spliced does; for a text without a tokenizer.
    """
    sizes = sizes_of(model)
    _check_site(dictionary)
    _check_widths(dictionary, sizes)
    tokens = tokens_of(model, text, tokenizer) if isinstance(text, str) else text
    hooks = Hooks(sizes, dictionary.site.reads, None, to_end=True)
    with ExitStack() as stack, torch.no_grad():
        listen(stack, model, hooks, sizes)
        model(tokens)
        x = torch.cat([hooks.captured[h].float() for h in dictionary.site.reads], dim=-1)
        return dictionary.encode(x.to(dictionary.W_dec.device))


def logits_of(
    model: LanguageModel, tokens: Int[Tensor, "batch position"], splice: Splice
) -> Float[Tensor, "batch position _"]:
    """Of the pipeline's own model, with a dictionary in it. Raises UserError: it cannot stand there."""
    splice.check()
    _check_widths(splice.dictionary, model.files.sizes)
    reads, passing = splice.dictionary.site.reads, _Pass()
    if splice.late:
        passing.clean, _ = model.forward(tokens, capture=reads)
    return model.forward(tokens, capture=reads, edit=dict(splice.edits(passing)), logits=True)[1]


def _check_site(dictionary: FeatureDictionary) -> None:
    """Raises UserError: its hook points are not known."""
    if not (dictionary.site.reads and dictionary.site.writes):
        raise UserError("the dictionary does not say what it reads and writes: load it with its hook point")


def _check_widths(dictionary: FeatureDictionary, sizes: Sizes) -> None:
    """Raises UserError: the model has no such hook point, or another width there."""
    for what, hook_points, d in (
        ("reads", dictionary.site.reads, dictionary.d_in),
        ("writes", dictionary.site.writes, dictionary.d_out),
    ):
        found = sum(sizes.d(h) for h in hook_points)
        if found != d:
            raise UserError(f"the dictionary {what} d = {d}, the model has {found} at {', '.join(hook_points)}")
