"""SAELens's trainers on rows that lie in memory, as the peer that the studies measure ours beside.

Its own trainer makes every step (forward, loss, backward, clipping, Adam, schedules), with the library's defaults: constant
rate, no warm-up, encoder = decoderᵀ of norm 0.1, no normalisation. Rows are scaled beforehand as ours scales them, to
E|x - mean|² = d, because the defaults suppose such rows. Its default rate of 3e-4 is meant for far longer trainings, so the
studies also take the best of RATES. What is measured is the inference form that the library saves.
"""

import itertools
import logging
import tempfile
import time
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from scripts.trained import Trained

DEFAULT_RATE = 3e-4
RATES = (DEFAULT_RATE, 1e-3, 3e-3)
ARCHITECTURES = {
    "topk": "topk",
    "batch_topk": "batchtopk",
    "matryoshka": "matryoshka_batchtopk",
    "relu_l1": "standard",
    "gated": "gated",
    "jumprelu": "jumprelu",
    "matching_pursuit": "matching_pursuit",
    "abs_topk": "abstopk",
}  # our family → theirs; there is none for tied and p_anneal
COEFFICIENT = {"standard": "l1_coefficient", "gated": "l1_coefficient", "jumprelu": "l0_coefficient"}
_K = {"matching_pursuit": "max_iterations"}  # the setting that is called k elsewhere


def settings_of(
    architecture: str, l0: float, d_sae: int, coefficient: float | None, prefixes: int = 5
) -> dict[str, Any]:
    """What decides the L0, and the widths of nested dictionaries, for which the library has no default: those of ours, each
    half of the next."""
    if architecture in COEFFICIENT:
        return {COEFFICIENT[architecture]: 1.0 if coefficient is None else coefficient}
    settings: dict[str, Any] = {_K.get(architecture, "k"): round(l0)}
    if architecture == "matryoshka_batchtopk":
        settings["matryoshka_widths"] = [d_sae >> i for i in reversed(range(prefixes))]
    if architecture == "matching_pursuit":
        settings["decoder_init_norm"] = 1.0  # the only one that it takes
    return settings


def train_peer(
    architecture: str,
    settings: dict[str, Any],
    batches: Iterable[Tensor],
    *,
    n_steps: int,
    batch_size: int,
    d_in: int,
    d_sae: int,
    scale: float,
    lr: float,
    seed: int,
) -> Trained:
    """batches: raw rows (batch_size, d_in), n_steps of them. scale: what they are multiplied by."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.saes.sae import SAE
    from sae_lens.training.sae_trainer import SAETrainer

    logging.getLogger("sae_lens").setLevel(logging.ERROR)
    torch.manual_seed(seed)
    sae_class, config_class = get_sae_training_class(architecture)
    sae: Any = sae_class(config_class(d_in=d_in, d_sae=d_sae, **settings))
    config = SAETrainerConfig(n_steps * batch_size, batch_size, lr=lr, lr_end=lr / 10)
    trainer = SAETrainer(config, sae, itertools.repeat(torch.empty(0)))
    seconds = 0.0
    for x in batches:
        started = time.perf_counter()
        trainer.step(x * scale)
        trainer.n_training_steps += 1
        seconds += time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sae.save_inference_model(folder)
        found: Any = SAE.load_from_disk(folder)
    for parameter in found.parameters():
        parameter.requires_grad_(False)
    return Trained(
        lambda x: found.encode(x * scale),
        lambda z: found.decode(z) / scale,
        found.W_dec.detach(),
        architecture == "abstopk",
        seconds,
    )
