"""What the language model loses when a reconstruction takes the place of its activations."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.protocol import LanguageModel
from pipeline.progress import progress

Reconstruct = Callable[[Tensor], Tensor]
_LOGITS_BYTES = 16 * 2**20  # larger tensors cost more to allocate than they save (measured: 2x)


@dataclass(frozen=True)
class Downstream:
    """Means over predictions, nats a token. kl: of the clean distribution from the spliced one."""

    ce_clean: float
    ce: float
    kl: float


def ce_score(ce_ablated: float, ce: float, ce_clean: float) -> float:
    """(CE_ablated - CE) / (CE_ablated - CE_clean): 1 loses nothing, 0 is as bad as the ablation.

    Raises ValueError: the ablation changes nothing, so that there is nothing to compare with.
    """
    if ce_ablated == ce_clean:
        raise ValueError(f"the ablated cross-entropy {ce_ablated} equals the clean one: no CE score is defined")
    return (ce_ablated - ce) / (ce_ablated - ce_clean)


def evaluate(
    model: LanguageModel,
    tokens: np.ndarray,
    hook_point: str,
    positions: tuple[int, ...],
    edits: Mapping[str, Reconstruct],
) -> dict[str, Downstream]:
    """Cross-entropy of next-token predictions at `positions` when each edit replaces the activations there.

    tokens: (n_sequences, context). Other positions (BOS, by default) keep their activations and are not counted; nor
    is the last position of the context, which predicts nothing. The pass up to the hook point is shared.
    """
    layer, _ = model.files.locate(hook_point)
    context = tokens.shape[1]
    places = torch.tensor([p for p in positions if p < context - 1], device=model.device)
    if not len(places):
        raise ValueError(f"none of the positions {positions} predicts a token of a context of {context}")
    replaced = torch.tensor(positions, device=model.device)
    clean_sum = 0.0
    sums = {name: np.zeros(2) for name in edits}
    n = 0
    for batch in progress(list(_batches(model, tokens)), desc=f"CE at {hook_point}", unit="batch", unit_scale=False):
        targets = batch[:, places + 1]
        before = f"blocks.{max(layer, 0)}.hook_resid_pre"
        captured, logits = model.forward(batch, capture=[before], logits=True)
        clean = F.log_softmax(logits[:, places].float(), dim=-1)
        clean_sum += float(-clean.gather(-1, targets[..., None]).double().sum())
        n += targets.numel()
        for name, edit in edits.items():

            def splice(x: Tensor, captured: Mapping[str, Tensor], edit: Reconstruct = edit) -> Tensor:
                x = x.clone()
                x[:, replaced] = edit(x[:, replaced].float()).to(x.dtype)  # edits are float32 whatever the model is
                return x

            resume = (layer, captured[before]) if layer >= 0 else None  # the embedding lies before every layer
            _, logits = model.forward(batch, edit={hook_point: splice}, logits=True, resume=resume)
            changed = F.log_softmax(logits[:, places].float(), dim=-1)
            ce = float(-changed.gather(-1, targets[..., None]).double().sum())
            kl = float((clean.exp() * (clean - changed)).double().sum())
            sums[name] += [ce, kl]
    return {name: Downstream(clean_sum / n, ce / n, kl / n) for name, (ce, kl) in sums.items()}


def _batches(model: LanguageModel, tokens: np.ndarray) -> Iterator[Tensor]:
    """Batches whose logits stay below _LOGITS_BYTES, of one sequence at least."""
    size = max(1, _LOGITS_BYTES // (tokens.shape[1] * model.files.vocab_size * 4))
    for start in range(0, len(tokens), size):
        yield torch.from_numpy(tokens[start : start + size].astype(np.int64)).to(model.device)
