"""What every dictionary family is while it is being trained."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import MethodConfig
from pipeline.train.initialisation import Centre, Init, centre, directions
from pipeline.train.kernels import matmul
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of

SMALL = 2**15  # d_in · d_sae up to which dictionaries of one shape are trained in one product; larger ones gain nothing


class FamilyConfig(MethodConfig):
    """Settings that all families have. One dictionary: one value of each.

    lr: by default the family's rule. warmup, decay: parts of the steps over which the rate rises from 0 and falls to 0,
    in a line or half a cosine; decay = 0 keeps it. init, init_noise: see initialisation.directions; init_norm: the length
    of the encoder's rows, and of the decoder's where the family leaves them free. b_dec_init: of the training rows.
    dead_after_tokens: a feature is dead when it was not active in as many tokens. resample_every_tokens: how often dead
    ones are given new directions (by default never), until the rate decays.
    """

    d_sae: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    lr: float | None = Field(default=None, gt=0)
    warmup: float = Field(default=0.05, ge=0, le=1)
    decay: float = Field(default=0.2, ge=0, le=1)
    decay_shape: Literal["linear", "cosine"] = "linear"
    grad_clip: float | None = Field(default=None, gt=0)
    init: Init = "random"
    init_noise: float = Field(default=0.3, ge=0)
    init_norm: float = Field(default=1.0, gt=0)
    b_dec_init: Centre = "mean"
    dead_after_tokens: int = Field(default=10_000_000, ge=1)
    resample_every_tokens: int | None = Field(default=None, ge=1)

    def check(self, d_in: int, hook_point: str) -> None:
        if self.init == "writer" and hook_point == "blocks.0.hook_resid_pre":
            raise ValueError('init = "writer": the embedding writes there, no matrix does')


@dataclass(frozen=True)
class Loss:
    """total: what is minimised; parts: named scalars for the log."""

    total: Tensor
    parts: dict[str, Tensor]


class Family(nn.Module, ABC):
    """Training form of a dictionary of d_sae features on scaled activations x (E|x - mean|² = d_in).

    W_enc and W_dec are both (d_sae, d_in), in the same directions to begin with; b_enc (d_sae); b_dec (d_in). b_dec
    learns from the reconstruction alone: the encoder reads x - b_dec as data, and b_enc can make up for what that leaves
    out.

    unit_decoder: decoder rows keep unit length, and the gradient along them is removed (Gao et al. 2024, appendix A.4).
    tied: W_enc is W_dec.
    small: loss is dense arithmetic that takes no turns by what the numbers are, so that torch.func.vmap can do it for
    several dictionaries at once.
    """

    unit_decoder = True
    tied = False

    def __init__(self, config: FamilyConfig, source: Source, matmul_dtype: torch.dtype) -> None:
        super().__init__()
        self.d_in = len(source.moments.mean)
        self.ranks = source.ranks
        own = self.ranks.shard(config.d_sae)
        self.d_sae = own.stop - own.start  # features held here
        self.scale = source.moments.scale
        self.small = self.ranks.size == 1 and self.d_in * self.d_sae <= SMALL
        self.matmul_dtype = matmul_dtype
        # Dictionaries of another size or family must not begin with the same directions: MMCS would see them.
        seed = seed_of("init", type(self).__name__, config.seed, config.d_sae)
        begin = directions(config.init, config.init_noise, config.d_sae, source, seed)[own].contiguous()
        self.W_dec = nn.Parameter(begin if self.unit_decoder else config.init_norm * begin)
        if not self.tied:
            self.W_enc = nn.Parameter(config.init_norm * begin)
        self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        self.b_dec = nn.Parameter(torch.from_numpy(centre(config.b_dec_init, source) * self.scale).float())
        # Dead features are counted in tokens, never in forward passes: the batch size must not change who is dead.
        self.register_buffer("tokens_since_fired", torch.zeros(self.d_sae, dtype=torch.long))
        self.tokens_since_fired: Tensor

    @abstractmethod
    def loss(self, x: Tensor, step: int, n_steps: int) -> Loss:
        """x: (batch, d_in) scaled activations. Also counts what fired."""

    @abstractmethod
    def to_dictionary(self, hook_point: str, provenance: dict) -> FeatureDictionary:
        """The dictionary on raw activations whose forward is this one's, with codes in units of the activations."""

    def forward(self, x: Tensor, step: int, n_steps: int) -> tuple[Tensor, dict[str, Tensor]]:
        """loss, as tensors alone: for torch.func."""
        loss = self.loss(x, step, n_steps)
        return loss.total, loss.parts

    def look(self, state: Mapping[str, Tensor]) -> None:
        """Before each loss: note what it must know as Python values. state: the buffers, or those of several stacked."""

    @classmethod
    @torch.no_grad()
    def before_step(cls, parameters: Mapping[str, Tensor]) -> None:
        """Between the gradient and the optimiser's step. parameters: of one dictionary, or of several stacked."""
        if cls.unit_decoder:
            W, gradient = parameters["W_dec"], parameters["W_dec"].grad
            assert gradient is not None
            gradient.addcmul_((gradient * W).sum(-1, keepdim=True), W, value=-1)

    @classmethod
    @torch.no_grad()
    def after_step(cls, parameters: Mapping[str, Tensor]) -> None:
        """After the optimiser's step."""
        if cls.unit_decoder:
            W = parameters["W_dec"]
            W.div_(W.norm(dim=-1, keepdim=True).clamp_min(1e-12))

    def pre(self, x: Tensor) -> Tensor:
        """x - b_dec (batch, d_in), as data → pre-activations (batch, d_sae) in the dtype of the matrix products."""
        # Not addmm: it rounds once where the batched product of a stack rounds twice.
        return matmul(x.detach(), self.W_enc.T, self.matmul_dtype) + self.b_enc.to(self.matmul_dtype)

    def activity(self, z: Tensor) -> Tensor:
        """Count what fired. z: (batch, d_sae), not negative. Returns L0, in passes that are fast on a CPU."""
        z = z.detach()
        self.count(z.amax(0) > 0, len(z))
        return z.sign().sum(dtype=torch.float32) / len(z)

    def count(self, fired: Tensor, n_tokens: int) -> None:
        """fired: (d_sae) bool, whether each feature was active in this batch of n_tokens."""
        if self.ranks.splits_rows:
            everywhere = self.ranks.row_total(F.pad(fired.long(), (0, 1), value=n_tokens))
            fired, n_tokens = everywhere[:-1] > 0, int(everywhere[-1])
        self.tokens_since_fired.add_(n_tokens).masked_fill_(fired, 0)

    def raw_weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """W_enc, b_enc, W_dec, b_dec of the same map on raw activations.

        The activations are positively homogeneous in pre-activations, biases and thresholds together: with x = raw · s,
        dividing the biases (and thresholds) by s divides codes and reconstruction by s; the weights stay as they are.
        """
        return self.W_enc.T, self.b_enc / self.scale, self.W_dec, self.b_dec / self.scale

    @staticmethod
    def default_lr(d_sae: int) -> float:
        """The 1/√d_sae rule of Gao et al. 2024 (2e-4 at 2^14), for dictionaries with decoder rows of unit length."""
        return 2e-4 * math.sqrt(2**14 / d_sae)
