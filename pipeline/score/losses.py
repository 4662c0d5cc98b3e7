"""The columns that say what the language model loses."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel, Precision
from pipeline.score.codes import reconstruct
from pipeline.score.downstream import Replacement, Splice, ce_score, evaluate
from stores.activations import ActivationStore
from stores.dictionary import FeatureDictionary
from stores.site import Site


def model_of(store: ActivationStore, device: str) -> LanguageModel | None:
    """None: no language model made the rows, as those of a toy, which have no cross-entropy."""
    description = store.description
    if description.model == "none":
        return None
    precision = cast(Precision, description.precision)
    return load_model(ModelFiles.of_store(description), description.weight_processing, device, precision)


def losses(
    n_sequences: int,
    store: ActivationStore,
    model: LanguageModel,
    writes: tuple[str, ...],
    replacements: Sequence[Replacement],
) -> list[dict[str, Any]]:
    """Columns of each replacement, on the held-out sequences, beside those with all of writes ablated."""
    description = store.description
    tokens = store.heldout_tokens(n_sequences)
    mean = torch.cat([torch.from_numpy(store.stats(h).mean) for h in writes]).float().to(model.device)
    site = Site(writes, writes)
    ablations = [Splice(site, torch.zeros_like), Splice(site, lambda y: mean.expand_as(y))]
    every = [*(Replacement([ablation]) for ablation in ablations), *replacements]
    zero, mean_ablated, *found = evaluate(model, tokens, description.positions, every)
    n_predictions = len(tokens) * sum(p < description.context - 1 for p in description.positions)
    return [
        {
            "ce_clean": loss.ce_clean,
            "ce": loss.ce,
            "ce_zero": zero.ce,
            "ce_mean": mean_ablated.ce,
            "ce_score_zero": ce_score(zero.ce, loss.ce, loss.ce_clean),
            "ce_score_mean": ce_score(mean_ablated.ce, loss.ce, loss.ce_clean),
            "kl": loss.kl,
            "top1": loss.top1,
            "n_predictions": n_predictions,
        }
        for loss in found
    ]


def losses_by_hook_point(
    n_sequences: int,
    store: ActivationStore,
    model: LanguageModel,
    site: Site,
    dictionaries: Sequence[FeatureDictionary],
) -> list[dict[str, Any]]:
    """Columns of each dictionary with one hook point that it writes replaced and the others left; none where there is one.

    All of them together say little of a residual stream: what is written last stands, whatever was written before.
    """
    found: list[dict[str, Any]] = [{} for _ in dictionaries]
    for i, hook_point in enumerate(site.writes if len(site.writes) > 1 else ()):
        alone = Site(site.reads, (hook_point,))
        replacements = [Replacement([Splice(alone, partial(_part, f, i))]) for f in dictionaries]
        for own, row in zip(found, losses(n_sequences, store, model, alone.writes, replacements), strict=True):
            own |= {f"{key}[{hook_point}]": row[key] for key in ("ce_score_zero", "kl", "top1")}
    return found


def _part(dictionary: FeatureDictionary, i: int, x: Tensor) -> Tensor:
    """What the dictionary makes of x for the i-th hook point that it writes."""
    return reconstruct(dictionary, x).split(dictionary.spec.d_writes, dim=-1)[i]
