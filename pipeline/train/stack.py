"""Several dictionaries of one shape in one product."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pipeline.train import static
from pipeline.train.captured import Captured
from pipeline.train.clock import Clock
from pipeline.train.families.base import Family
from pipeline.train.families.loss import Now
from pipeline.train.foresight import Foresight
from pipeline.train.learner import FamilyLearner, followed, take_step
from pipeline.train.optimiser import adam
from pipeline.train.whitening import scaled_by


class Stack:
    """Learners of one shape and at one step, trained in batched products; each learns what it would have learned alone.

    Their weights become parts of stacked tensors, (n, …), and stay theirs: to save one or to make a dictionary of it,
    nothing need be known of the stack.
    """

    def __init__(self, learners: list[FamilyLearner]) -> None:
        self.learners, self.first = learners, learners[0]
        self.parameters = {
            name: torch.stack([dict(own.model.named_parameters())[name].detach() for own in learners]).requires_grad_(
                name != self.first.frozen
            )
            for name, _ in self.first.model.named_parameters()
        }
        self.buffers = {
            name: torch.stack([dict(own.model.named_buffers())[name] for own in learners])
            for name, _ in self.first.model.named_buffers()
        }
        for i, own in enumerate(learners):
            for name, parameter in own.model.named_parameters():
                parameter.data = self.parameters[name].detach()[i]
            for name, stacked in self.buffers.items():
                setattr(own.model, name, stacked[i])
        # Of each one's own parts: over a stacked tensor Adam's kernel rounds other elements than it does over one.
        self.optimiser = adam([p for own in learners for p in own.model.parameters()])
        for own in learners:
            for parameter in own.model.parameters():
                self.optimiser.state[parameter] = own.optimiser.state[parameter]
            own.foresight = Foresight()  # the steps that are made here it does not see
            own.captured.forget()  # its weights are in other places
        self.clock, self.captured = Clock(), Captured(f"{len(learners)} of {type(self.first.model).__name__}")

    def step(
        self,
        x: Float[Tensor, "*n batch d_in"],
        step: int,
        n_steps: int,
        y: Float[Tensor, "*n batch d_out"] | None = None,
    ) -> list[dict[str, Tensor]]:
        """As FamilyLearner.step, for each learner. x: (batch, d_in) for all, or (n, batch, d_in), each its own; y alike."""
        model = self.first.model
        for own in self.learners:
            own.measure_run(x.shape[-2], n_steps)
        dead = self.buffers["tokens_since_fired"] > model.dead_after
        now = self.clock.now(model, step, n_steps, static.wanted(dead) or bool(dead.any()))
        parts = self.captured.step(self._learn, x, y, now, (self.first.dtype, model.dead_after))
        resampled, own_rows = False, x.ndim == 3
        for i, own in enumerate(self.learners):
            target = x if y is None else y
            resampled |= own.resample(*((x[i], target[i]) if own_rows else (x, target)), step, n_steps)
        if resampled:
            parts["dead"] = self._n_dead()
        columns = {name: part.unbind() for name, part in parts.items()}
        return [{name: column[i] for name, column in columns.items()} for i in range(len(self.learners))]

    def _learn(self, x: Tensor, y: Tensor | None, now: Now) -> dict[str, Tensor]:
        """A step, as far as the host looks at no value for it, on a device: (n,) of each part."""
        model = self.first.model

        def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, y: Tensor) -> Any:
            return functional_call(model, {**parameters, **buffers}, (x, y, now))

        own_rows = x.ndim == 3
        scaled = self._scaled("scale_in", x)
        dims = (0, 0, *((0, 0) if own_rows else (None, None)))
        totals, parts, fired = vmap(loss, in_dims=dims)(
            self.parameters, self.buffers, scaled, scaled if y is None else self._scaled("scale_out", y)
        )
        self._leave_gradients()
        totals.sum().backward()
        for i, own in enumerate(self.learners):
            for name, parameter in own.model.named_parameters():
                gradient = self.parameters[name].grad
                parameter.grad = None if gradient is None else gradient[i]
        take_step(self.first, self.parameters, self.optimiser, now, stacked=True)
        if now.captured:
            self._leave_gradients()  # other graphs may have the memory
        parts = {name: part.detach() for name, part in parts.items()}
        self._follow(parts, torch.where(fired, 0, self.buffers["tokens_since_fired"] + x.shape[-2]), now)
        return {**parts, "dead": self._n_dead()}

    def _leave_gradients(self) -> None:
        self.optimiser.zero_grad()
        for stacked in self.parameters.values():
            stacked.grad = None

    def _n_dead(self) -> Int64[Tensor, " n"]:
        return (self.buffers["tokens_since_fired"] > self.first.model.dead_after).sum(-1)

    def _scaled(self, name: str, rows: Float[Tensor, "*n batch d"]) -> Float[Tensor, "*n batch d"]:
        """Raw rows, all learners' or each one's own, by the scale of that name."""
        scales = self.buffers[name]
        return vmap(scaled_by)(scales, rows) if rows.ndim == 3 else scaled_by(scales[0], rows)

    @torch.no_grad()
    def _follow(self, parts: dict[str, Tensor], silent: Int64[Tensor, "n d_sae"], now: Now) -> None:
        model = _Following(self.first.model)

        def new(buffers: dict[str, Tensor], parts: dict[str, Tensor], silent: Tensor) -> dict[str, Tensor]:
            own = {f"model.{name}": buffer for name, buffer in buffers.items()}
            return functional_call(model, own, (parts, silent, now))

        for name, value in vmap(new)(self.buffers, parts, silent).items():
            self.buffers[name].copy_(value)


class _Following(nn.Module):
    """learner.followed as a module's forward, for torch.func."""

    def __init__(self, model: Family) -> None:
        super().__init__()
        self.model = model

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        return followed(self.model, *arguments)
