"""One training step of this project's dictionaries and of other libraries', each by its own trainer or the calls of it.

    pip install -e '.[dev]'                                     # SAELens
    pip install --no-deps eai-sparsify dictionary-learning schedulefree natsort simple-parsing docstring-parser einops \
        accelerate "nnsight<0.4" && pip install python-socketio msgspec    # the others, as far as their trainers go
"""

import itertools
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.source import Source
from stores.moments import Moments


@dataclass(frozen=True)
class Sizes:
    """Of a dictionary of d_sae features and k active ones, and of a batch of so many rows of d_in numbers."""

    d_in: int
    d_sae: int
    k: int
    batch: int

    def __str__(self) -> str:
        return f"{self.d_in} x {self.d_sae:,}, k {self.k}, batch {self.batch:,}"


@dataclass
class Contestant:
    """step(x, i): of a batch on the device. raw: x is raw activations, else they are scaled to E|x - mean|² = d."""

    step: Callable[[Tensor, int], Any]
    reconstruct: Callable[[Tensor], Tensor]
    raw: bool = False


def source_of(moments: Moments, hook_point: str) -> Source:
    """What begins from no rows."""
    return Source.at(
        hook_point, moments, lambda n: torch.empty(0).numpy(), lambda n: torch.empty(0).numpy(), lambda: None
    )  # type: ignore[arg-type,return-value]


def learner(method: str, source: Source, device: str = "cpu", **settings: Any) -> FamilyLearner:
    made = METHODS[method]
    assert made.learner is not None
    found = made.learner(made.config(**settings), source, device)
    assert isinstance(found, FamilyLearner)
    return found


def ours(method: str, source: Source, sizes: Sizes, device: str = "cpu", dead: int = 0, **settings: Any) -> Contestant:
    """dead: so many of the latents are dead at every step."""
    own = learner(method, source, device, d_sae=sizes.d_sae, warmup=0, **settings)
    which = torch.randperm(sizes.d_sae, generator=torch.Generator().manual_seed(0))[:dead].to(device)

    def step(x: Tensor, i: int) -> None:
        if dead:
            own.model.tokens_since_fired[which] = 10**9
        own.step(x, i, 10**6)

    return Contestant(step, lambda x: own.to_dictionary({})(x), raw=True)


def saelens(architecture: str, lr: float, sizes: Sizes, device: str = "cpu", autocast: bool = False) -> Contestant:
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    shape: dict[str, Any] = {"d_in": sizes.d_in, "d_sae": sizes.d_sae, "device": device}
    if architecture == "topk":
        sae: Any = TopKTrainingSAE(TopKTrainingSAEConfig(**shape, k=sizes.k))
    else:
        sae = StandardTrainingSAE(StandardTrainingSAEConfig(**shape))
    config = SAETrainerConfig(10**12, sizes.batch, lr=lr, lr_end=lr, device=device, autocast=autocast)
    trainer = SAETrainer(config, sae, itertools.repeat(torch.empty(0)))
    return Contestant(lambda x, i: trainer.step(x), sae)


def sparsify(lr: float, mean: Tensor, sizes: Sizes, device: str = "cpu") -> Contestant:
    """mean: of the scaled rows. On CUDA its own forward multiplies in bfloat16."""
    if device == "cpu":
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # where Triton is installed it would be used, and fail
    from sparsify import SparseCoder, SparseCoderConfig

    sae = SparseCoder(sizes.d_in, SparseCoderConfig(num_latents=sizes.d_sae, k=sizes.k), device=device)
    sae.b_dec.data = mean.clone().to(device)  # as its trainer does at its first step
    optimiser = torch.optim.Adam(sae.parameters(), lr=lr)
    alive = torch.zeros(sizes.d_sae, dtype=torch.bool, device=device)

    def step(x: Tensor, i: int) -> None:
        sae.set_decoder_norm_to_unit_norm()
        sae(x, dead_mask=alive).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimiser.step()
        optimiser.zero_grad()

    return Contestant(step, lambda x: sae(x).sae_out)


def dictionary_learning(lr: float, sizes: Sizes, device: str = "cpu", autocast: bool = False) -> Contestant:
    from dictionary_learning.trainers.top_k import TopKTrainer

    trainer = TopKTrainer(10**6, sizes.d_in, sizes.d_sae, sizes.k, 0, "", lr=lr, warmup_steps=0, device=device)
    kind = torch.device(device).type

    def step(x: Tensor, i: int) -> None:
        with torch.autocast(kind, dtype=torch.bfloat16) if autocast else nullcontext():
            trainer.update(i, x.bfloat16() if autocast else x)

    return Contestant(step, trainer.ae)
