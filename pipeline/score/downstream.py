"""What the language model loses when what dictionaries make of its activations takes their place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline import stopping
from pipeline.models.hooks import Edit
from pipeline.models.protocol import LanguageModel
from pipeline.progress import progress
from stores.site import Site

_LOGITS_BYTES = 16 * 2**20  # larger tensors cost more to allocate than they save (measured: 2x)


@dataclass(frozen=True)
class Splice:
    """What map makes of what the site reads takes the place of what it writes.

    map: (…, d_in) float32 → (…, d_out), each the site's hook points concatenated in their order.
    """

    site: Site
    map: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Replacement:
    """Splices that are made in one pass.

    live: each reads that pass, in which the splices before it are made, rather than the clean one; what it reads has to
    lie before what it writes. errors: what it lacks in the clean pass is added.
    """

    splices: Sequence[Splice]
    live: bool = False
    errors: bool = False

    @classmethod
    def at(cls, hook_point: str, map: Callable[[Tensor], Tensor]) -> "Replacement":
        """One splice of one hook point."""
        return cls([Splice(Site.at(hook_point), map)])

    @property
    def reads(self) -> list[str]:
        return list(dict.fromkeys(h for splice in self.splices for h in splice.site.reads))

    @property
    def writes(self) -> list[str]:
        return list(dict.fromkeys(h for splice in self.splices for h in splice.site.writes))


@dataclass(frozen=True)
class Downstream:
    """Means over predictions, nats a token. kl: of the clean distribution from the spliced one. top1: the share of
    predictions whose most probable token is the clean model's."""

    ce_clean: float
    ce: float
    kl: float
    top1: float


def ce_score(ce_ablated: float, ce: float, ce_clean: float) -> float:
    """(CE_ablated - CE) / (CE_ablated - CE_clean): 1 loses nothing, 0 is as bad as the ablation.

    Raises ValueError: the ablation changes nothing, so that there is nothing to compare with.
    """
    if ce_ablated == ce_clean:
        raise ValueError(f"the ablated cross-entropy {ce_ablated} equals the clean one: no CE score is defined")
    return (ce_ablated - ce) / (ce_ablated - ce_clean)


@torch.inference_mode()
def evaluate(
    model: LanguageModel, tokens: np.ndarray, positions: tuple[int, ...], replacements: Sequence[Replacement]
) -> list[Downstream]:
    """Next-token predictions at `positions`, of each replacement that is made there.

    tokens: (n_sequences, context). Other positions (BOS, by default) keep their activations and are not counted; nor
    is the last position of the context, which predicts nothing. The pass up to the first layer that is written to is
    shared.
    """
    reads = list(dict.fromkeys(h for r in replacements for h in r.reads))
    writes = list(dict.fromkeys(h for r in replacements for h in r.writes))
    layer = min(model.files.locate(h)[0] for h in writes)  # -1: the embedding
    before = f"blocks.{max(0, layer)}.hook_resid_pre"
    context = tokens.shape[1]
    places = torch.tensor([p for p in positions if p < context - 1], device=model.device)
    if not len(places):
        raise ValueError(f"none of the positions {positions} predicts a token of a context of {context}")
    replaced = torch.tensor(positions, device=model.device)
    clean_sum = 0.0
    sums = [np.zeros(3) for _ in replacements]
    n = 0
    where = Site(tuple(writes), tuple(writes)).name
    for batch in progress(list(_batches(model, tokens)), desc=f"CE at {where}", unit="batch", unit_scale=False):
        stopping.look(f"all is kept but the cross-entropy at {where}")
        targets = batch[:, places + 1]
        captured, logits = model.forward(batch, capture={before, *reads, *writes}, logits=True)
        found = {h: captured[h][:, replaced].float() for h in {*reads, *writes}}
        clean = F.log_softmax(logits[:, places].float(), dim=-1)
        probable, best = clean.exp(), clean.argmax(-1)
        clean_sum += float(-clean.gather(-1, targets[..., None]).double().sum())
        n += targets.numel()
        for total, replacement in zip(sums, replacements, strict=True):
            edits = {h: edit for s in replacement.splices for h, edit in _edits(s, replacement, found, replaced)}
            seen = {h for h in replacement.reads if replacement.live and model.files.locate(h)[0] >= layer}
            resume = (layer, captured[before]) if layer >= 0 else None
            _, logits = model.forward(batch, seen, edits, logits=True, resume=resume)
            changed = F.log_softmax(logits[:, places].float(), dim=-1)
            ce = float(-changed.gather(-1, targets[..., None]).double().sum())
            same = float((changed.argmax(-1) == best).sum())
            kl = float(changed.sub_(clean).mul_(probable).sum(-1).double().sum())
            total += [ce, -kl, same]
    return [Downstream(clean_sum / n, *(total / n).tolist()) for total in sums]


def _edits(
    splice: Splice, replacement: Replacement, clean: Mapping[str, Tensor], replaced: Tensor
) -> Iterator[tuple[str, Edit]]:
    """(hook point, its edit). clean: what the clean pass has at each hook point and the positions `replaced`."""
    reads, writes = splice.site.reads, splice.site.writes

    def written(x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        y_hat = splice.map(torch.cat([x[h] for h in reads], dim=-1))
        return dict(zip(writes, y_hat.split([clean[h].shape[-1] for h in writes], dim=-1), strict=True))

    at_clean = {} if replacement.live and not replacement.errors else written(clean)
    for hook_point in writes:

        def edit(y: Tensor, captured: Mapping[str, Tensor], hook_point: str = hook_point) -> Tensor:
            if replacement.live:  # what lies before the layer where the pass is resumed is as in the clean pass
                now = {h: captured[h][:, replaced].float() if h in captured else clean[h] for h in reads}
                y_hat = written(now)[hook_point]
            else:
                y_hat = at_clean[hook_point]
            if replacement.errors:
                y_hat = y_hat + (clean[hook_point] - at_clean[hook_point])
            y = y.clone()
            y[:, replaced] = y_hat.to(y.dtype)  # maps are float32 whatever the model is
            return y

        yield hook_point, edit


def _batches(model: LanguageModel, tokens: np.ndarray) -> Iterator[Tensor]:
    """Batches whose logits stay below _LOGITS_BYTES, of one sequence at least."""
    size = max(1, _LOGITS_BYTES // (tokens.shape[1] * model.files.vocab_size * 4))
    for start in range(0, len(tokens), size):
        yield torch.from_numpy(tokens[start : start + size].astype(np.int64)).to(model.device)
