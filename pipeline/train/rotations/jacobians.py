"""Jacobians of a batch of inputs, formed only where they are small.

All have one interface: d_in, d_out, n_inputs, and what a solver asks of them. A product left J right is never larger than
the columns that are asked for: J of GPT-2 small's MLP has 590,000 entries for each input.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, Self

import torch
from torch import Tensor

from pipeline.models.activation_functions import ACTIVATIONS
from pipeline.models.mlp import MLP


class Jacobians(Protocol):
    """J (n_inputs, d_out, d_in), one matrix for each input."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(n_inputs, d_out, d_in)."""
        ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def bytes_per_column(self) -> int:
        """What a product takes for each column of each input, with its gradient; a bound, for splitting."""
        ...

    def product(self, left: Tensor | None, right: Tensor | None, columns: Tensor | None = None) -> Tensor:
        """left (a, d_out), right (d_in, b) → left J right (n_inputs, a, b), or of each input only its columns, (n_inputs, c)
        indices below b: (n_inputs, a, c). None: the identity. Differentiable by left and right."""
        ...

    def squared_norms(self) -> Tensor:
        """(n_inputs,) |J|_F²: exact."""
        ...

    def mean(self) -> Tensor:
        """E[J] (d_out, d_in) over the inputs: exact."""
        ...

    def second_moments(self) -> tuple[Tensor, Tensor]:
        """E[JᵀJ] (d_in, d_in) and E[JJᵀ] (d_out, d_out) over the inputs: exact."""
        ...

    def rows(self, start: int, stop: int) -> Self:
        """Those of the inputs start ≤ i < stop."""
        ...

    def scaled(self, by: Tensor) -> Self:
        """Each input's Jacobian times its number in by, (n_inputs,)."""
        ...

    def to(self, dtype: torch.dtype) -> Self:
        """The same, with products in another dtype."""
        ...


def split(J: Jacobians, n_columns: int, budget: int) -> Iterator[tuple[int, Jacobians]]:
    """(first input, Jacobians) in order, each part as large as products of n_columns allow in `budget` bytes."""
    n = J.shape[0]
    size = max(1, budget // (n_columns * J.bytes_per_column))
    for start in range(0, n, size):
        yield start, J.rows(start, min(n, start + size))


def sampled_columns(n_inputs: int, d: int, c: int, seed: int) -> Tensor:
    """(n_inputs, c) indices below d, for each input c different ones, each set as likely as any other.

    So d/c times a sum over the columns drawn is, in expectation, the sum over all.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_inputs, d, generator=generator).topk(c, dim=1).indices


class Dense:
    """Jacobians that are there: J (n_inputs, d_out, d_in). Activations x are the case d_in = 1: R x = R J."""

    def __init__(self, J: Tensor) -> None:
        self.J = J

    @property
    def shape(self) -> tuple[int, int, int]:
        return tuple(self.J.shape)  # pyright: ignore[reportReturnType]

    @property
    def dtype(self) -> torch.dtype:
        return self.J.dtype

    @property
    def bytes_per_column(self) -> int:
        return 4 * self.J.element_size() * (self.J.shape[1] + self.J.shape[2])

    def product(self, left: Tensor | None, right: Tensor | None, columns: Tensor | None = None) -> Tensor:
        found = self.J
        if left is not None and not left.requires_grad:  # first: a gradient by right need not pass through it
            found, left = (found.mT @ left.T).mT, None  # the matrix last: one product for all inputs
        if right is not None:
            found = found @ (right if columns is None else right.T[columns].mT)
        elif columns is not None:
            found = found.gather(2, columns[:, None].expand(-1, found.shape[1], -1))
        return found if left is None else (found.mT @ left.T).mT

    def squared_norms(self) -> Tensor:
        return self.J.square().sum((1, 2))

    def mean(self) -> Tensor:
        return self.J.mean(0)

    def second_moments(self) -> tuple[Tensor, Tensor]:
        n = len(self.J)
        stacked, side = self.J.flatten(0, 1), self.J.mT.flatten(0, 1)
        return stacked.T @ stacked / n, side.T @ side / n

    def rows(self, start: int, stop: int) -> "Dense":
        return Dense(self.J[start:stop])

    def scaled(self, by: Tensor) -> "Dense":
        return Dense(self.J * by[:, None, None].to(self.J.dtype))

    def to(self, dtype: torch.dtype) -> "Dense":
        return Dense(self.J.to(dtype))


def of_module(module: Callable[[Tensor], Tensor], x: Tensor) -> Dense:
    """Jacobians of any function of one row, (d_in) → (d_out), at the rows of x (n_inputs, d_in): torch.func."""
    return Dense(torch.func.vmap(torch.func.jacrev(module))(x).detach())


@dataclass(frozen=True)
class Weights:
    """What Jacobians of an MLP at any input have in common, for m = d_mlp hidden units, or with a gate m = 2 d_mlp: a product
    act(h_gate) h_in has the derivative act(h_gate) by h_in and act'(h_gate) h_in by h_gate, so [W_in, W_gate] stands for
    W_in, those two for the slope, and W_out stands twice below itself.

    W_in (d_model, m), b_in (m), W_out (m, d_model). Where the norm's derivative is part of J, its gain and offset are in W_in
    and b_in, and W_in of a layer norm has no mean over d_model.
    """

    W_in: Tensor
    b_in: Tensor
    W_out: Tensor

    @classmethod
    def of(cls, mlp: MLP, layer_norm: bool) -> "Weights":
        W_in, b_in, W_out = mlp.W_in, mlp.b_in, mlp.W_out
        if mlp.gate:
            W_in, b_in, W_out = torch.cat([W_in, mlp.gate[0]], 1), torch.cat([b_in, mlp.gate[1]]), W_out.repeat(2, 1)
        if layer_norm:
            W_in, b_in = mlp.gain[:, None] * W_in, b_in + mlp.offset @ W_in
            W_in = W_in - W_in.mean(0) if mlp.norm == "layer" else W_in  # (I - 11ᵀ/d) W
        return cls(W_in, b_in, W_out)

    @cached_property
    def out(self) -> Tensor:
        """W_out W_outᵀ (m, m)."""
        return self.W_out @ self.W_out.T

    @cached_property
    def both(self) -> Tensor:
        """(W_out W_outᵀ) ∘ (W_inᵀ W_in): |J|² = g'ᵀ both g'."""
        return self.out * (self.W_in.T @ self.W_in)


def _slopes(mlp: MLP, pre: Tensor) -> Tensor:
    """pre (n_inputs, m), before the activation function → derivatives g' (n_inputs, m) of what follows it. See Weights."""
    act = ACTIVATIONS[mlp.activation]
    if not mlp.gate:
        return act.slope(pre)
    h_in, h_gate = pre.chunk(2, 1)
    return torch.cat([act.value(h_gate), act.slope(h_gate) * h_in], 1)


class OfMLP:
    """Jacobians of an MLP at x (n_inputs, d_model), from its weights, without autograd and without forming them.

    layer_norm: x lies on the residual stream, and the norm's derivative is part of J:
        J = W_outᵀ diag(g') W_inᵀ (1/σ)(I - 11ᵀ/d - x̂x̂ᵀ/d), the gain folded into W_in, g' the slope at x̂ W_in + b_in;
        of an RMS norm without the 11ᵀ/d.
    Otherwise x is u, what the MLP reads, and J = W_outᵀ diag(g') W_inᵀ. weights: those of the same MLP and layer_norm, if
    they are there already.
    """

    def __init__(self, mlp: MLP, x: Tensor, layer_norm: bool = True, weights: Weights | None = None) -> None:
        weights = weights or Weights.of(mlp, layer_norm)
        if layer_norm:
            x_hat, sigma = mlp.normalise(x)
            along = x_hat @ weights.W_in  # x̂ W_in, (n_inputs, m): where W_in lacks its mean, so does x̂
            self._set(weights, _slopes(mlp, along + weights.b_in) / sigma, x_hat, along)
        else:
            self._set(weights, _slopes(mlp, x @ weights.W_in + weights.b_in), None, None)

    def _set(self, weights: Weights, slope: Tensor, x_hat: Tensor | None, along: Tensor | None) -> None:
        """slope: g' / σ, (n_inputs, m)."""
        self.weights, self.slope, self.x_hat, self.along = weights, slope, x_hat, along
        self.W_in, self.W_out = weights.W_in, weights.W_out

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.slope), self.W_out.shape[1], len(self.W_in)

    @property
    def dtype(self) -> torch.dtype:
        return self.slope.dtype

    @property
    def bytes_per_column(self) -> int:
        return 5 * self.slope.element_size() * self.slope.shape[1]

    def product(self, left: Tensor | None, right: Tensor | None, columns: Tensor | None = None) -> Tensor:
        A = self.W_out.T if left is None else left @ self.W_out.T  # (a, m)
        B = self.W_in if right is None else right.T @ self.W_in  # (b, m): the columns of W_inᵀ right
        n = len(self.slope)
        # index_select: the backward pass of B[columns] adds up one row after another, on one core
        inner = B[None] if columns is None else B.index_select(0, columns.flatten()).view(n, -1, B.shape[1])
        if self.x_hat is not None and self.along is not None:
            along = self.x_hat if right is None else self.x_hat @ right
            share = along / self.x_hat.shape[1]  # (n_inputs, b): rightᵀ x̂ / d
            share = share if columns is None else share.gather(1, columns)
            inner = torch.addcmul(inner, share[..., None], self.along[:, None], value=-1)
        inner = inner * self.slope[:, None]
        return (inner @ A.T).mT

    def squared_norms(self) -> Tensor:
        found = ((self.slope @ self.weights.both) * self.slope).sum(1)
        if self.x_hat is not None and self.along is not None:
            v = self.slope * self.along
            found = found - self._lost() * ((v @ self.weights.out) * v).sum(1)
        return found

    def mean(self) -> Tensor:
        inner = self.slope.mean(0)[:, None] * self.W_in.T
        if self.x_hat is not None and self.along is not None:
            inner = inner - (self.slope * self.along).T @ self.x_hat / self.x_hat.numel()
        return self.W_out.T @ inner

    def _lost(self) -> Tensor:
        """(n_inputs,) c = (2 - |x̂|²/d) / d, with P² = I - 11ᵀ/d - c x̂x̂ᵀ for P = I - 11ᵀ/d - x̂x̂ᵀ/d; of an RMS norm both
        are without 11ᵀ/d."""
        assert self.x_hat is not None
        d = self.x_hat.shape[1]
        return (2 - self.x_hat.square().sum(1) / d) / d

    def second_moments(self) -> tuple[Tensor, Tensor]:
        """With C = E[g'g'ᵀ]: E[JᵀJ] = W_in ((W_out W_outᵀ) ∘ C) W_inᵀ, E[JJᵀ] = W_outᵀ ((W_inᵀ W_in) ∘ C) W_out; with the
        norm, less what its x̂x̂ᵀ takes away, which is a sum of outer products of rows."""
        n, W_out, out = len(self.slope), self.W_out, self.weights.out
        inner = self.W_in.T @ self.W_in
        C = self.slope.T @ self.slope / n
        JtJ = self.W_in @ (out * C) @ self.W_in.T
        if self.x_hat is not None and self.along is not None:
            # M_n = W_in diag(g') W_out W_outᵀ diag(g') W_inᵀ of one input; JᵀJ = (I - x̂x̂ᵀ/d) M_n (I - x̂x̂ᵀ/d)
            d, v = self.x_hat.shape[1], self.slope * self.along
            Mx = ((v @ out) * self.slope) @ self.W_in.T / d  # (n_inputs, d): M_n x̂ / d
            xMx = (self.x_hat * Mx).sum(1, keepdim=True) / d
            cross = Mx.T @ self.x_hat
            JtJ = JtJ - (cross + cross.T - (self.x_hat * xMx).T @ self.x_hat) / n
            inner = inner * C - (v * self._lost()[:, None]).T @ v / n
        else:
            inner = inner * C
        return JtJ, W_out.T @ inner @ W_out

    def rows(self, start: int, stop: int) -> "OfMLP":
        x_hat, along = (None if t is None else t[start:stop] for t in (self.x_hat, self.along))
        return self._with(self.slope[start:stop], x_hat, along)

    def scaled(self, by: Tensor) -> "OfMLP":
        return self._with(self.slope * by[:, None].to(self.slope.dtype), self.x_hat, self.along)

    def to(self, dtype: torch.dtype) -> "OfMLP":
        x_hat, along = (None if t is None else t.to(dtype) for t in (self.x_hat, self.along))
        weights = Weights(*(t.to(dtype) for t in (self.W_in, self.weights.b_in, self.W_out)))
        return self._with(self.slope.to(dtype), x_hat, along, weights)

    def _with(
        self, slope: Tensor, x_hat: Tensor | None, along: Tensor | None, weights: Weights | None = None
    ) -> "OfMLP":
        found = object.__new__(OfMLP)
        found._set(weights or self.weights, slope, x_hat, along)
        return found
