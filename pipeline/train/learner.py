"""A family under Adam, alone or several of one shape in one product."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.functional import normalize

from pipeline.train.families.base import Family, FamilyConfig
from pipeline.train.kernels import product_dtype
from pipeline.train.ranks import ALONE
from pipeline.train.schedules import crossed, lr_factor
from pipeline.train.source import Source
from stores.dictionary import FeatureDictionary
from stores.manifest import seed_of

_WHOLE = ("b_dec", "W_skip")  # what is not feature by feature
_MAY_DIFFER = {"seed", "l1_coefficient", "l0_coefficient"}  # between dictionaries in one product: they are tensors


class FamilyLearner:
    """Adam with β = (0.9, 0.999), ε = 6.25e-10 on scaled activations (Gao et al. 2024, appendix A.3)."""

    def __init__(self, family: type[Family], config: FamilyConfig, source: Source, device: str) -> None:
        self.config = config
        self.dtype = product_dtype(source.precision, device)
        self.model = family(config, source, self.dtype).to(device)
        self.lr = config.lr or self.model.default_lr(config.d_sae)
        self.optimiser = _adam(self.model.parameters())
        self.source, self.ranks = source, source.ranks
        self._n_rows: dict[int, int] = {}  # of a whole batch, by how many of them are seen here
        # One value each: b_enc, a threshold. W_dec, W_enc and b_dec are not of this kind.
        self.at_first = {
            n: float(p.detach()[0]) for n, p in self.model.named_parameters() if p.ndim == 1 and n not in _WHOLE
        }

    @property
    def shape(self) -> Hashable:
        """Learners of equal shapes can be trained as a Stack; None: this one cannot."""
        if not self.model.small:
            return None
        return type(self.model), self.config.model_dump_json(exclude=_MAY_DIFFER), self.dtype

    def step(self, x: Tensor, step: int, n_steps: int, y: Tensor | None = None) -> dict[str, Tensor]:
        """x (batch, d_in) raw activations; y (batch, d_out), what is written where x is read, None where that is x.
        Returns the parts of the loss."""
        self.model.matmul_dtype = self.dtype
        self.model.look(dict(self.model.named_buffers()))
        scaled = self.model.scaled(x)
        loss = self.model.loss(scaled, scaled if y is None else self.model.scaled_targets(y), step, n_steps)
        self.optimiser.zero_grad()
        (loss.total * self._share(x)).backward()
        for parameter in self.model.parameters():
            if self.ranks.splits_rows and parameter.grad is not None:
                parameter.grad = self.ranks.row_total(parameter.grad)
        _update(self, dict(self.model.named_parameters()), self.optimiser, step, n_steps)
        self.resample(x, x if y is None else y, step, n_steps)
        parts = {name: self.ranks.row_mean(part.detach(), len(x)) for name, part in loss.parts.items()}
        dead = self.dead().sum()
        return parts | {"dead": self.ranks.total(dead) if self.ranks.splits_features else dead}

    def _share(self, x: Tensor) -> float:
        """What part of the whole batch x is."""
        if len(x) not in self._n_rows:
            self._n_rows[len(x)] = int(self.ranks.row_total(torch.tensor(len(x), device=x.device)))
        return len(x) / self._n_rows[len(x)]

    def dead(self) -> Tensor:
        """(d_sae) bool"""
        return self.model.tokens_since_fired > self.config.dead_after_tokens

    @torch.no_grad()
    def resample(self, x: Tensor, y: Tensor, step: int, n_steps: int) -> None:
        """Give the dead features new directions, if it is time for it.

        Each gets a row that is drawn with the probability of its squared error's square: a decoder row along what is to be
        made of it, an encoder row along what is read of it, of a fifth of the others' mean length, a bias of 0, and no
        memory in Adam (Bricken et al. 2023, "Towards monosemanticity", appendix "Neuron resampling", there with one larger
        sample of rows).
        """
        every = self.config.resample_every_tokens
        if every is None or step >= (1 - self.config.decay) * n_steps:
            return
        if not crossed(step, round(len(x) / self._share(x)), every):
            return
        x, y = self.ranks.whole_batch(x), self.ranks.whole_batch(y)
        dead, model = self.dead(), self.model
        n = int(dead.sum())
        if not n:
            return
        generator = torch.Generator().manual_seed(seed_of("resample", self.config.seed, step))
        error = (
            model.scaled_targets(y - self.to_dictionary({}).to(x.device)(x)).double().square().sum(-1).square().cpu()
        )
        rows = torch.multinomial(error / error.sum(), n, replacement=n > len(x), generator=generator).to(x.device)
        read, target = model.centred(model.scaled(x[rows]), model.scaled_targets(y[rows]))
        directions = {"W_enc": normalize(read, dim=-1), "W_dec": normalize(target, dim=-1)}
        for name, parameter in model.named_parameters():
            if name in _WHOLE:
                continue
            if name in self.at_first:
                parameter[dead] = self.at_first[name]
            else:
                length = parameter[~dead].norm(dim=-1).mean() if bool((~dead).any()) else 1.0
                parameter[dead] = directions[name] * length * (0.2 if name == "W_enc" else 1.0)
            for key in ("exp_avg", "exp_avg_sq"):
                self.optimiser.state[parameter][key][dead] = 0.0
        model.tokens_since_fired[dead] = 0

    def state(self) -> dict[str, Tensor]:
        state = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state.get(parameter, {}).items():
                state[f"adam.{name}.{key}"] = value
        if self.ranks.splits_features:
            state = {k: torch.cat(self.ranks.gathered(v)) if _per_feature(k, v) else v for k, v in state.items()}
        # A run goes on with the arithmetic it began with, wherever it is resumed.
        state["bfloat16"] = torch.tensor(self.dtype == torch.bfloat16)
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        own = self.ranks.shard(self.config.d_sae)
        state = {k: v[own] if _per_feature(k, v) else v for k, v in state.items()}
        self.model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
        for name, parameter in self.model.named_parameters():
            prefix = f"adam.{name}."
            moments = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            if moments:
                self.optimiser.state[parameter] = {k: v.to(parameter.device) for k, v in moments.items()}
        self.dtype = torch.bfloat16 if bool(state["bfloat16"]) else torch.float32

    def to_dictionary(self, provenance: dict) -> FeatureDictionary:
        if not self.ranks.splits_features:
            return self.model.to_dictionary(provenance)
        whole = FamilyLearner(type(self.model), self.config, replace(self.source, ranks=ALONE), "cpu")
        whole.load_state({k: v.cpu() for k, v in self.state().items()})
        return whole.to_dictionary(provenance)


def _per_feature(name: str, tensor: Tensor) -> bool:
    """Whether the rows of a part of the state are features."""
    return tensor.ndim > 0 and not any(whole in name for whole in (*_WHOLE, "penalties"))


class Stack:
    """Learners of one shape and at one step, trained in batched products; each learns what it would have learned alone.

    Their weights and Adam's moments become parts of stacked tensors, (n, …), and stay theirs: to save one or to make a
    dictionary of it, nothing need be known of the stack.
    """

    def __init__(self, learners: list[FamilyLearner]) -> None:
        self.learners, self.first = learners, learners[0]
        self.first.model.matmul_dtype = self.first.dtype
        self.parameters = {
            name: torch.stack([dict(own.model.named_parameters())[name].detach() for own in learners]).requires_grad_()
            for name, _ in self.first.model.named_parameters()
        }
        self.buffers = {
            name: torch.stack([dict(own.model.named_buffers())[name] for own in learners])
            for name, _ in self.first.model.named_buffers()
        }
        self.optimiser = _adam(self.parameters.values())
        for name, stacked in self.parameters.items():
            self._join(learners, name, stacked)
        for i, own in enumerate(learners):
            for name, stacked in self.buffers.items():
                setattr(own.model, name, stacked[i])

    def _join(self, learners: list[FamilyLearner], name: str, stacked: Tensor) -> None:
        """Make one parameter of all learners, and its moments, parts of the stacked ones."""
        own = [dict(learner.model.named_parameters())[name] for learner in learners]
        before = [learner.optimiser.state.get(p, {}) for learner, p in zip(learners, own, strict=True)]
        zeros = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(own[0]), "exp_avg_sq": torch.zeros_like(own[0])}
        moments = {k: torch.stack([b.get(k, z) for b in before]).detach() for k, z in zeros.items()}
        moments["step"] = moments["step"][0].clone()
        self.optimiser.state[stacked] = moments
        for i, (learner, parameter) in enumerate(zip(learners, own, strict=True)):
            parameter.data = stacked.detach()[i]
            learner.optimiser.state[parameter] = {k: v if k == "step" else v[i] for k, v in moments.items()}

    def step(self, x: Tensor, step: int, n_steps: int, y: Tensor | None = None) -> list[dict[str, Tensor]]:
        """As FamilyLearner.step, for each learner. x: (batch, d_in) for all, or (n, batch, d_in), each its own; y alike."""
        model = self.first.model
        model.look(self.buffers)

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Any:
            return functional_call(model, {**parameters, **buffers}, (x, y, step, n_steps))

        own_rows = x.ndim == 3
        scales = [self.buffers[name] for name in ("scale_in", "scale_out")]
        x_scale, y_scale = (scale.view(len(scale), 1, -1) if own_rows else scale[0] for scale in scales)
        scaled = x * x_scale
        dims = (0, 0, *((0, 0) if own_rows else (None, None)))
        totals, parts = vmap(loss, in_dims=dims)(
            self.parameters, self.buffers, scaled, scaled if y is None else y * y_scale
        )
        self.optimiser.zero_grad()
        totals.sum().backward()
        _update(self.first, self.parameters, self.optimiser, step, n_steps, stacked=True)
        dead = (self.buffers["tokens_since_fired"] > self.first.config.dead_after_tokens).sum(-1)
        for i, own in enumerate(self.learners):
            target = x if y is None else y
            own.resample(*((x[i], target[i]) if own_rows else (x, target)), step, n_steps)
        columns = {name: part.detach().unbind() for name, part in {**parts, "dead": dead}.items()}
        return [{name: column[i] for name, column in columns.items()} for i in range(len(totals))]


def _adam(parameters: Any) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, eps=6.25e-10, fused=True)


def _update(
    learner: FamilyLearner,
    parameters: Mapping[str, Tensor],
    optimiser: torch.optim.Adam,
    step: int,
    n_steps: int,
    stacked: bool = False,
) -> None:
    """From the gradients to the next weights, by the settings of one learner. stacked: of several along dimension 0."""
    config = learner.config
    learner.model.before_step(parameters)
    if config.grad_clip:
        _clip([p.grad for p in parameters.values() if p.grad is not None], config.grad_clip, stacked)
    optimiser.param_groups[0]["lr"] = learner.lr * lr_factor(
        step, n_steps, config.warmup, config.decay, config.decay_shape
    )
    optimiser.step()
    learner.model.after_step(parameters)


def _clip(gradients: list[Tensor], largest: float, stacked: bool) -> None:
    """Scale each dictionary's gradient down to a norm of `largest`, if it is longer."""
    for own in zip(*gradients, strict=True) if stacked else [gradients]:
        factor = (largest / (torch.nn.utils.get_total_norm(own) + 1e-6)).clamp(max=1.0)
        for gradient in own:
            gradient.mul_(factor)
