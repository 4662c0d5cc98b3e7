"""A family under Adam, alone or several of one shape in one product.

Here, once for all families: the sums over processes, the clipping of gradients, dead features and new directions for them,
the optimiser, the state.
"""

from collections.abc import Hashable, Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.train import fused, states, static
from pipeline.train.captured import Captured
from pipeline.train.clock import Clock
from pipeline.train.families.base import Family, FamilyConfig
from pipeline.train.families.loss import Now
from pipeline.train.foresight import Foresight
from pipeline.train.frozen import frozen_weights
from pipeline.train.kernels import product_dtype
from pipeline.train.optimiser import adam, set_rate
from pipeline.train.products import Products
from pipeline.train.ranks import ALONE
from pipeline.train.schedules import crossed
from pipeline.train.source import Source
from pipeline.train.sums import Sums
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of

_DEAD_AFTER = 10_000_000  # tokens (Gao et al. 2024)
SMALL = 2**15  # d_in · d_sae up to which dictionaries of one shape are trained in one product; larger ones gain nothing


class FamilyLearner:
    """Adam with β = (0.9, 0.999), ε = 6.25e-10 on scaled activations (Gao et al. 2024, appendix A.3)."""

    def __init__(self, family: type[Family], config: FamilyConfig, source: Source, device: str) -> None:
        self.config, self.source, self.ranks = config, source, source.ranks
        self.model = family(config, source)
        small = self.ranks.size == 1 and max(self.model.d_in, self.model.d_out) * config.d_sae <= SMALL
        self.model.products = Products(product_dtype(source.precision, device), small, self.ranks)
        if self.ranks.size > 1:  # eigenvectors, of which weights are made, may have other signs on another machine
            for tensor in self.model.state_dict().values():
                tensor.copy_(self.ranks.first(tensor))  # on the CPU: a device may have no room for the whole
        self._keep_own_features()
        self.model.to(device)
        self.frozen = frozen_weights(family, config)
        if self.frozen:
            getattr(self.model, self.frozen).requires_grad_(False)
        self.optimiser = adam(self.model.parameters())
        self.foresight, self.clock = Foresight(), Clock()
        self.captured = Captured(family.__name__, self.ranks.size == 1)
        self.sums = Sums(self.model, self.ranks)
        # What a resampled feature begins with again; its rows of W_enc and W_dec are new.
        self.at_first = {
            name: p.detach().clone()
            for name, p in self.model.named_parameters()
            if self._per_feature(name, p) and name not in ("W_enc", "W_dec")
        }

    @property
    def dtype(self) -> torch.dtype:
        """Of the matrix products."""
        return self.model.products.dtype

    @dtype.setter
    def dtype(self, dtype: torch.dtype) -> None:
        self.model.products = replace(self.model.products, dtype=dtype)

    @property
    def shape(self) -> Hashable:
        """Learners of equal shapes can be trained as a Stack; None: this one cannot."""
        if not self.model.products.dense:
            return None
        return type(self.model), self.config.model_dump_json(exclude={"seed", *self.model.as_tensors}), self.dtype

    def step(
        self, x: Float[Tensor, "batch d_in"], step: int, n_steps: int, y: Float[Tensor, "batch d_out"] | None = None
    ) -> dict[str, Tensor]:
        """x: raw activations; y: what is written where x is read, None where that is x. Returns the parts of the loss,
        "l0" and "dead"."""
        model = self.model
        self.measure_run(self._n_whole(x), n_steps)
        now = self.clock.now(model, step, n_steps, self._any_dead())
        parts = self.captured.step(self._learn, x, y, now, (self.dtype, model.dead_after))
        longest = parts.pop("longest")
        if static.wanted(x):
            self.foresight.follow(longest, self._n_whole(x))
        if self.resample(x, x if y is None else y, step, n_steps):
            parts["dead"] = torch.zeros_like(parts["dead"])
        return parts

    def _learn(self, x: Tensor, y: Tensor | None, now: Now) -> dict[str, Tensor]:
        """A step, as far as the host looks at no value for it, on a device. "longest": the longest silence of a feature."""
        model = self.model
        scaled = model.scaled(x)
        total, parts, fired = model(scaled, scaled if y is None else model.scaled_targets(y), now)
        self.optimiser.zero_grad()
        with model.products.deferred.here(fused.defers(model)):
            parts, fired = self.sums.backward(total, parts, fired, self._share(x))
        silent = torch.where(fired, 0, model.tokens_since_fired + self._n_whole(x))
        parts, n_dead, longest = self.sums.of_features(parts, silent, model.dead_after)
        take_step(self, dict(model.named_parameters()), self.optimiser, now)
        if now.captured:
            self.optimiser.zero_grad()  # other graphs may have the memory
        with torch.no_grad():
            for name, value in followed(model, parts, silent, now).items():
                getattr(model, name).copy_(value)
        return parts | {"dead": n_dead, "longest": longest}

    def measure_run(self, batch: int, n_steps: int) -> None:
        """From when on features are dead, in a run of n_steps batches of so many tokens."""
        if self.config.dead_after_tokens is None:
            self.model.dead_after = max(1, min(_DEAD_AFTER, batch * n_steps // 100))

    def _n_whole(self, x: Float[Tensor, "batch d_in"]) -> int:
        """Rows of the whole batch of which x is a part."""
        return self.ranks.n_rows(len(x))

    def _share(self, x: Float[Tensor, "batch d_in"]) -> float:
        """What part of the whole batch x is."""
        return len(x) / self._n_whole(x)

    def _any_dead(self) -> bool:
        """Whether some are, in any process; on a device, which would have to come to an end first, whether some may be."""
        if static.wanted(self.model.tokens_since_fired):
            return self.foresight.any_dead(self.model.dead_after)
        found = self.dead().any()  # where rows are divided all processes count the same tokens
        return bool(self.ranks.total(found.int()) if self.ranks.splits_features else found)

    def dead(self) -> Bool[Tensor, " d_sae"]:
        return self.model.tokens_since_fired > self.model.dead_after

    @torch.no_grad()
    def resample(self, x: Tensor, y: Tensor, step: int, n_steps: int) -> bool:
        """Give the dead features new directions, if it is time for it. Returns whether there were some: now there are none.

        Each gets a row that is drawn with the probability of its squared error's square: a decoder row along what is to be
        made of it, an encoder row along what is read of it, of a fifth of the others' mean length, a bias of 0, and no
        memory in Adam (Bricken et al. 2023, "Towards monosemanticity", appendix "Neuron resampling", there with one larger
        sample of rows).
        """
        every = self.config.resample_every_tokens
        if every is None or step >= (1 - self.config.decay) * n_steps or not crossed(step, self._n_whole(x), every):
            return False
        x, y, ranks = self.ranks.whole_batch(x), self.ranks.whole_batch(y), self.ranks
        dead, model = self.dead(), self.model
        counts = [int(n) for n in ranks.gathered(dead.sum()[None])] if ranks.splits_features else [int(dead.sum())]
        n, before = sum(counts), sum(counts[: ranks.rank]) if ranks.splits_features else 0
        if not n:
            return False
        generator = torch.Generator().manual_seed(seed_of("resample", self.config.seed, step))
        error = self._error(x, y, step, n_steps).double().square().sum(-1).square().cpu()
        rows = torch.multinomial(error / error.sum(), n, replacement=n > len(x), generator=generator).to(x.device)
        rows = rows[before : before + int(dead.sum())]
        read, target = model.centred(model.scaled(x[rows]), model.scaled_targets(y[rows]))
        directions = {"W_enc": normalize(read, dim=-1), "W_dec": normalize(target, dim=-1)}
        for name, parameter in model.named_parameters():
            if not self._per_feature(name, parameter):
                continue
            if name in self.at_first:
                parameter[dead] = self.at_first[name][dead]
            else:
                parameter[dead] = directions[name] * self._mean_norm(parameter[~dead]) * (0.2 if name == "W_enc" else 1)
            for key, moment in self.optimiser.state.get(parameter, {}).items():
                if key != "step":
                    moment[dead] = 0.0
        model.tokens_since_fired[dead] = 0
        return True

    def _error(self, x: Tensor, y: Tensor, step: int, n_steps: int) -> Float[Tensor, "batch d_out"]:
        """What the dictionary leaves of scaled rows; where features are divided, what the step's own code leaves."""
        model = self.model
        if not self.ranks.splits_features:
            return model.scaled_targets(y - self.to_dictionary({}).to(x.device)(x))
        read, target = model.centred(model.scaled(x), model.scaled_targets(y))
        code = model.loss(read, target, model.now(step, n_steps, False)).code
        return target - model.decode(code)

    def _mean_norm(self, rows: Float[Tensor, "n d"]) -> Tensor:
        """Of the rows that all processes have; 1 without any."""
        norms = rows.norm(dim=-1)
        both = torch.stack([norms.sum(), norms.new_tensor(float(len(norms)))])
        total, n = self.ranks.total(both) if self.ranks.splits_features else both
        return torch.where(n > 0, total / n.clamp_min(1), 1.0)

    def state(self) -> dict[str, Tensor]:
        """Of the features that this process holds, as load_state takes it."""
        found = states.state(self.model, self.optimiser)
        return found | {"foresight": self.foresight.state()} if static.wanted(self.model.W_dec) else found

    def load_state(self, state: dict[str, Tensor]) -> None:
        states.load(state, self.model, self.optimiser)
        self.foresight = Foresight()
        if "foresight" in state and static.wanted(self.model.W_dec):
            self.foresight.load(state["foresight"])
        self.captured.forget()

    def divided(self, state: Mapping[str, Tensor]) -> list[str]:
        """The parts of a state of which each process has the rows of its features, if features are divided."""
        return [k for k, v in state.items() if self.ranks.splits_features and self._per_feature(k, v)]

    def own(self, name: str, whole: Tensor) -> Tensor:
        """What this process holds of a part of the state of all features."""
        if not (self.ranks.splits_features and self._per_feature(name, whole)):
            return whole
        return whole[self.ranks.shard(self.config.d_sae)].clone()

    def _per_feature(self, name: str, tensor: Tensor) -> bool:
        """Whether the rows of a part of the state, or of the model, are features."""
        return states.per_feature(self.model, name, tensor)

    def _keep_own_features(self) -> None:
        if not self.ranks.splits_features:
            return
        own = self.ranks.shard(self.config.d_sae)
        for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            if self._per_feature(name, tensor):
                tensor.data = tensor.data[own].clone()

    def alone(self) -> "FamilyLearner":
        """One of the same settings that holds all features, on the CPU: for the state of all."""
        return FamilyLearner(type(self.model), self.config, replace(self.source, ranks=ALONE), "cpu")

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        """Raises ValueError: this process holds some of the features."""
        if self.ranks.splits_features:
            raise ValueError("to_dictionary of a part of the features: load the state of all into alone()")
        return self.model.to_dictionary(provenance)


def take_step(
    learner: FamilyLearner,
    parameters: Mapping[str, Tensor],
    optimiser: torch.optim.Adam,
    now: Now,
    stacked: bool = False,
) -> None:
    """From the gradients to the next weights, by the settings of one learner. stacked: of several along dimension 0."""
    config, model = learner.config, learner.model
    set_rate(optimiser, now.lr)
    if fused.holds(model):
        fused.take(model, optimiser)
        return
    if model.unit_decoder and learner.frozen != "W_dec":
        _project(model, parameters["W_dec"])
    if config.grad_clip:
        gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
        _clip(gradients, config.grad_clip, stacked, learner)
    optimiser.step()
    # A row of unit length, divided by its length, may change in its last bit: what is frozen is constrained as a copy.
    model.constrain({name: p.clone() if name == learner.frozen else p for name, p in parameters.items()})


@torch.no_grad()
def _project(model: Family, W_dec: Float[Tensor, "*n d_sae d_out"]) -> None:
    """Take the part of the gradient away that would change the norms of decoder rows of unit length."""
    gradient, sizes = W_dec.grad, model.d_writes
    assert gradient is not None
    if len(sizes) > 1:  # the norm's own gradient: each hook point's part of a row at unit length
        W_dec = torch.cat([normalize(part, dim=-1) for part in W_dec.split(sizes, dim=-1)], dim=-1)
    along = (gradient * W_dec).sum(-1, keepdim=True)
    gradient.addcmul_(along / len(sizes), W_dec, value=-1)


def _clip(gradients: Mapping[str, Tensor], largest: float, stacked: bool, learner: FamilyLearner) -> None:
    """Scale each dictionary's gradient down to a norm of `largest`, if it is longer."""
    for own in zip(*gradients.values(), strict=True) if stacked else [tuple(gradients.values())]:
        norm = torch.nn.utils.get_total_norm(own)
        if learner.ranks.splits_features:
            by_feature = [g for name, g in gradients.items() if name not in learner.model.whole]
            elsewhere = torch.nn.utils.get_total_norm(by_feature).square()
            norm = (norm.square() - elsewhere + learner.ranks.total(elsewhere)).sqrt()
        factor = (largest / (norm + 1e-6)).clamp(max=1.0)
        for gradient in own:
            gradient.mul_(factor)


def followed(
    model: Family, parts: Mapping[str, Tensor], silent: Int64[Tensor, " d_sae"], now: Now
) -> dict[str, Tensor]:
    """The buffers that a batch changes. parts: of the whole batch; silent: tokens since each feature fired, with its."""
    new = model.update(parts, now.of(model.tokens_since_fired, model.dead_after))
    new["tokens_since_fired"] = silent
    new["density"] = parts["l0"] / model.d_sae
    return new
