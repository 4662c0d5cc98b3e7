"""What every dictionary family is while it is being trained."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pipeline.train.codes import Code
from pipeline.train.families.config import FamilyConfig
from pipeline.train.families.loss import Loss, Now
from pipeline.train.initialisation import centre, directions, drawn
from pipeline.train.products import Products
from pipeline.train.schedules import lr_factor
from pipeline.train.selections import Selection
from pipeline.train.source import Source
from pipeline.train.whitening import scaled_by, unwhitened, whitening, with_unit_rows
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of
from stores.spec import WITH_K

_LONG, _LARGEST_LR = 50_000, 1e-2


class Family(nn.Module, ABC):
    """Training form of a dictionary of d_sae features that makes y of x, what a site writes of what it reads.

    x (batch, d_in) and y (batch, d_out) are scaled: E|y - mean|² = d at each hook point. An autoencoder's y is x. W_enc is
    (d_sae, d_in), W_dec (d_sae, d_out), of an autoencoder in the same directions to begin with, of others in random ones;
    b_enc (d_sae); b_dec (d_out), which learns from the reconstruction alone; W_skip (d_in, d_out) or None. An autoencoder
    reads x - b_dec as data, and b_enc can make up for what that leaves out; others read x less its mean.

    What a family says of itself:
    Config: its settings. label: those that name a dictionary, with their short forms.
    as_tensors: settings that the loss reads as tensors, self.NAME (nan for None), and nothing reads otherwise: dictionaries
    that differ in these and in the seed alone are trained in one product.
    unit_decoder: decoder rows keep the norm 1, and the gradient along them is removed (Gao et al. 2024, appendix A.4). The
    norm of a row is the sum of its norms by hook point written (Lindsey et al. 2024, "Sparse crosscoders"), and so is the
    norm that penalties weigh codes by.
    tied: W_enc is W_dec. biased: there is a b_enc.
    whole: parameters and buffers, by name, that are not one row for each feature.
    by_batch: which features of a token are active depends on the rest of its batch; the dictionary's code does not.
    divisible: several processes can each hold a part of the features: the loss uses encode, decode and total.
    """

    Config: ClassVar[type[FamilyConfig]]
    label: ClassVar[dict[str, str]] = {}
    as_tensors: ClassVar[tuple[str, ...]] = ()
    unit_decoder: ClassVar[bool] = True
    tied: ClassVar[bool] = False
    biased: ClassVar[bool] = True
    whole: ClassVar[tuple[str, ...]] = ("b_dec", "W_skip")
    by_batch: ClassVar[bool] = False
    divisible: ClassVar[bool] = True

    def __init__(self, config: FamilyConfig, source: Source) -> None:
        super().__init__()
        self.config, self.source, self.products = config, source, Products()
        # In tokens; by default the learner says, who knows how long the run is.
        self.dead_after = config.dead_after_tokens or 1
        self.d_in, self.d_out, self.d_writes = source.reads.d, source.targets.d, source.targets.sizes
        self.d_sae, self.autoencodes = config.d_sae, source.autoencodes
        for name, side in (("scale_in", source.reads), ("scale_out", source.targets)):
            scale = whitening(config.whiten, side) if config.whiten else torch.as_tensor(side.scale)
            # Eigenvectors may come with other signs on another machine: a matrix is part of the state.
            self.register_buffer(name, scale.float().clone(), persistent=config.whiten is not None)
        self.scale_in: Tensor
        self.scale_out: Tensor
        # Dictionaries of another size or family must not begin with the same directions: MMCS would see them.
        seed = seed_of("init", type(self).__name__, config.seed, config.d_sae)
        begin = directions(config.init, config.init_noise, config.d_sae, source, seed)
        if config.whiten and config.init not in ("random", "orthogonal"):
            begin = nn.functional.normalize(self.scaled(begin), dim=-1)  # these are directions of raw activations
        decoder = begin if self.autoencodes else drawn(config.d_sae, self.d_out, seed_of(seed, "decoder"))
        norms = self.norms(decoder)[:, None] if len(self.d_writes) > 1 else 1.0
        self.W_dec = nn.Parameter(decoder / norms if self.unit_decoder else config.init_norm * decoder)
        if not self.tied:
            self.W_enc = nn.Parameter(config.init_norm * begin * (norms if self.unit_decoder else 1.0))
        if self.biased:
            self.b_enc = nn.Parameter(torch.zeros(self.d_sae))
        self.b_dec = nn.Parameter(
            self.scaled_targets(torch.from_numpy(centre(config.b_dec_init, source.targets))).float()
        )
        self.W_skip = nn.Parameter(torch.zeros(self.d_in, self.d_out)) if config.skip else None
        mean = torch.from_numpy(source.reads.mean)
        self.register_buffer("mean_in", self.scaled(mean).float(), persistent=config.whiten is not None)
        self.mean_in: Tensor
        # Dead features are counted in tokens, never in forward passes: the batch size must not change who is dead.
        self.register_buffer("tokens_since_fired", torch.zeros(self.d_sae, dtype=torch.long))
        self.tokens_since_fired: Tensor
        self.register_buffer("density", torch.ones(()))  # of the last batch's code
        self.density: Tensor
        for name in self.as_tensors:
            value = getattr(config, name)
            self.register_buffer(name, torch.tensor(math.nan if value is None else float(value)), persistent=False)

    @abstractmethod
    def loss(self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now) -> Loss:
        """x: what the encoder reads; y: what the code has to make. Both are centred and scaled. A pure function."""

    @abstractmethod
    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        """The dictionary on raw activations whose forward is this one's, with codes in units of the activations."""

    def schedule(self, step: int, n_steps: int) -> dict[str, float]:
        """What changes with the step, as now[NAME]; step counts from 0. On a device floats become tensors; an int or a bool
        stays a number, by which the host may decide what is done, and steps for each of its values are captured apart."""
        config = self.config
        factor = lr_factor(step, n_steps, config.warmup, config.decay, config.decay_shape)
        return {"lr": factor * (config.lr or self.default_lr(config, n_steps))}

    def update(self, parts: Mapping[str, Tensor], now: Now) -> dict[str, Tensor]:
        """New values of the family's own buffers, by name. parts: the loss's, of the whole batch, and "l0"."""
        return {}

    @torch.no_grad()
    def constrain(self, parameters: Mapping[str, Tensor]) -> None:
        """After the optimiser's step. parameters: by name, of this dictionary or of several stacked."""
        if self.unit_decoder:
            W = parameters["W_dec"]
            W.div_(self.norms(W)[..., None].clamp_min(1e-12))

    @classmethod
    def default_lr(cls, config: FamilyConfig, n_steps: int) -> float:
        """The 1/√d_sae rule of Gao et al. 2024 (2e-4 at 2^14), for runs of _LONG steps and more; shorter ones get there
        by a rate that is larger by √(_LONG / n_steps) (scripts/study_defaults.py)."""
        rate = 2e-4 * math.sqrt(2**14 / config.d_sae)
        return max(rate, min(_LARGEST_LR, rate * math.sqrt(_LONG / n_steps)))

    # What a loss is made of.

    def encode(self, x: Float[Tensor, "batch d_in"], select: Selection) -> Code:
        """What is selected of x W_encᵀ + b_enc."""
        return self.products.encode(x, self.W_enc, self.b_enc, select, self.density)

    def encode_among(
        self,
        latents: Bool[Tensor, " d_sae"],
        x: Float[Tensor, "batch d_in"],
        select: Selection,
        code: Code,
        n_rows: int | None = None,
    ) -> Code:
        """encode of x[:n_rows], as if there were only some of the latents. code: what encode made of x."""
        return self.products.encode_among(latents, x, self.W_enc, self.b_enc, select, code, n_rows)

    def pre(self, x: Float[Tensor, "batch d_in"]) -> Float[Tensor, "batch d_sae"]:
        """x W_encᵀ + b_enc, in the dtype of the products."""
        return self.products.pre(x, self.W_enc, self.b_enc)

    def decode(self, code: Code) -> Float[Tensor, "batch d_out"]:
        """code W_dec."""
        return self.products.decode(code, self.W_dec)[0]

    def total(
        self, code: Code, of: Callable[[Tensor], Tensor] | None = None, weights: Float[Tensor, " d_sae"] | None = None
    ) -> Float[Tensor, ""]:
        """Σ_i of(z_i) weights_i, averaged over the rows; of(0) = 0."""
        return self.products.whole(code.total(of, weights))

    def norms(self, W_dec: Float[Tensor, "*n d_sae d_out"]) -> Float[Tensor, "*n d_sae"]:
        """Of decoder rows: the sum of their norms by hook point."""
        if len(self.d_writes) == 1:
            return W_dec.norm(dim=-1)
        return torch.stack([part.norm(dim=-1) for part in W_dec.split(self.d_writes, dim=-1)]).sum(0)

    # What a dictionary is made of.

    @property
    def common_scale(self) -> float:
        """What a code in units of the activations that are written is multiplied by to be one of scaled ones."""
        return self.source.targets.common_scale

    def centring(self) -> Tensor | float:
        """(d_sae,): what the mean of x, which is taken away before the encoder, would add to the pre-activations."""
        return 0.0 if self.autoencodes else self.W_enc @ self.mean_in

    def raw_weights(self) -> dict[str, Tensor]:
        """W_enc, b_enc, W_dec, b_dec and, if there is one, W_skip, of the same map on raw activations.

        The activations are positively homogeneous in pre-activations, biases and thresholds together: with x = raw · s,
        dividing the biases (and thresholds) by s divides codes and reconstruction by s; the weights stay as they are. Where
        hook points have scales of their own, weights get their ratios to one that all have in common.
        """
        common, several = self.common_scale, len(self.d_writes) > 1
        W_enc, b_enc, W_dec, b_dec = self.W_enc.T, (self.b_enc - self.centring()) / common, self.W_dec, self.b_dec
        skip = {}
        if self.W_skip is not None:
            b_dec, skip = b_dec - self.mean_in @ self.W_skip, {"W_skip": self.W_skip}
        if self.config.whiten:
            weights = {"W_enc": W_enc / common, "b_enc": b_enc, "W_dec": W_dec * common, "b_dec": b_dec, **skip}
            return unwhitened(weights, self.scale_in, self.scale_out)
        scale_in = self.scale_in.expand(self.d_in)[:, None]
        if several or not self.autoencodes:
            W_enc = W_enc * (scale_in / common)
        if several:
            W_dec = W_dec * (common / self.scale_out)
        skip = {name: W * scale_in / self.scale_out for name, W in skip.items()}
        return {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec / self.scale_out, **skip}

    def dictionary(
        self, architecture: str, provenance: dict, weights: dict[str, Tensor], k: int = 0, **others: Tensor
    ) -> FeatureDictionary:
        """weights: raw_weights, or what they become; others: what the architecture has besides."""
        spec = self.source.spec(architecture, self.d_sae, provenance, k, self.W_skip is not None)
        weights = {**weights, **others}
        if self.config.whiten and architecture not in WITH_K:  # which of the k are largest is by the codes' lengths
            weights = with_unit_rows(weights)
        return FeatureDictionary(spec, **weights)

    # What the learner asks for.

    def scaled(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        """Raw activations, scaled."""
        return scaled_by(self.scale_in, x)

    def scaled_targets(self, y: Float[Tensor, "*batch d_out"]) -> Float[Tensor, "*batch d_out"]:
        """Raw activations, scaled."""
        return scaled_by(self.scale_out, y)

    def centred(
        self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"]
    ) -> tuple[Float[Tensor, "batch d_in"], Float[Tensor, "batch d_out"]]:
        """(what the encoder reads, as data; what its code has to make), by which b_dec and W_skip get their gradients."""
        target = y - self.b_dec
        if self.autoencodes:
            return target.detach(), target
        read = x - self.mean_in
        if self.W_skip is not None:
            target = target - self.products.matmul(read, self.W_skip)
        return read, target

    def now(self, step: int, n_steps: int, any_dead: bool) -> Now:
        """By numbers of the host."""
        now = Now(step, n_steps, any_dead, self.schedule(step, n_steps))
        return now.of(self.tokens_since_fired, self.dead_after)

    def forward(
        self, x: Float[Tensor, "batch d_in"], y: Float[Tensor, "batch d_out"], now: Now
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], Bool[Tensor, " d_sae"]]:
        """(total, parts with "l0", which features were active) of scaled rows: the loss as tensors alone."""
        loss = self.loss(*self.centred(x, y), now.of(self.tokens_since_fired, self.dead_after))
        return loss.total, {**loss.parts, "l0": loss.code.l0()}, loss.code.fired()
