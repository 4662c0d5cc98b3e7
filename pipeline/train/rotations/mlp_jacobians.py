"""Jacobians of an MLP in closed form, from its weights."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pipeline.models.activation_functions import ACTIVATIONS
from pipeline.models.mlp import MLP


@dataclass(frozen=True)
class Weights:
    """What Jacobians of an MLP at any input have in common, for m = d_mlp hidden units, or with a gate m = 2 d_mlp: a product
    act(h_gate) h_in has the derivative act(h_gate) by h_in and act'(h_gate) h_in by h_gate, so [W_in, W_gate] stands for
    W_in, those two for the slope, and W_out stands twice below itself.

    Where the norm's derivative is part of J, its gain and offset are in W_in
    and b_in, and W_in of a layer norm has no mean over d_model.
    """

    W_in: Float[Tensor, "d_model m"]
    b_in: Float[Tensor, " m"]
    W_out: Float[Tensor, "m d_model"]

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
    def out(self) -> Float[Tensor, "m m"]:
        """W_out W_outᵀ."""
        return self.W_out @ self.W_out.T

    @cached_property
    def both(self) -> Float[Tensor, "m m"]:
        """(W_out W_outᵀ) ∘ (W_inᵀ W_in): |J|² = g'ᵀ both g'."""
        return self.out * (self.W_in.T @ self.W_in)


def _slopes(mlp: MLP, pre: Float[Tensor, "n_inputs m"]) -> Float[Tensor, "n_inputs m"]:
    """pre: before the activation function. The derivatives g' of what follows it, see Weights."""
    act = ACTIVATIONS[mlp.activation]
    if not mlp.gate:
        return act.slope(pre)
    h_in, h_gate = pre.chunk(2, 1)
    return torch.cat([act.value(h_gate), act.slope(h_gate) * h_in], 1)


class OfMLP:
    """Jacobians of an MLP at x, from its weights, without autograd and without forming them.

    layer_norm: x lies on the residual stream, and the norm's derivative is part of J:
        J = W_outᵀ diag(g') W_inᵀ (1/σ)(I - 11ᵀ/d - x̂x̂ᵀ/d), the gain folded into W_in, g' the slope at x̂ W_in + b_in;
        of an RMS norm without the 11ᵀ/d.
    Otherwise x is u, what the MLP reads, and J = W_outᵀ diag(g') W_inᵀ. weights: those of the same MLP and layer_norm, if
    they are there already.
    """

    def __init__(
        self, mlp: MLP, x: Float[Tensor, "n_inputs d_model"], layer_norm: bool = True, weights: Weights | None = None
    ) -> None:
        weights = weights or Weights.of(mlp, layer_norm)
        if layer_norm:
            x_hat, sigma = mlp.normalise(x)
            along = x_hat @ weights.W_in  # x̂ W_in, (n_inputs, m): where W_in lacks its mean, so does x̂
            self._set(weights, _slopes(mlp, along + weights.b_in) / sigma, x_hat, along)
        else:
            self._set(weights, _slopes(mlp, x @ weights.W_in + weights.b_in), None, None)

    def _set(
        self,
        weights: Weights,
        slope: Float[Tensor, "n_inputs m"],
        x_hat: Float[Tensor, "n_inputs d_model"] | None,
        along: Float[Tensor, "n_inputs m"] | None,
    ) -> None:
        """slope: g' / σ."""
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

    def product(
        self,
        left: Float[Tensor, "a d_out"] | None,
        right: Float[Tensor, "d_in b"] | None,
        columns: Int64[Tensor, "n_inputs c"] | None = None,
    ) -> Float[Tensor, "n_inputs _ _"]:
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

    def squared_norms(self) -> Float[Tensor, " n_inputs"]:
        found = ((self.slope @ self.weights.both) * self.slope).sum(1)
        if self.x_hat is not None and self.along is not None:
            v = self.slope * self.along
            found = found - self._lost() * ((v @ self.weights.out) * v).sum(1)
        return found

    def mean(self) -> Float[Tensor, "d_out d_in"]:
        inner = self.slope.mean(0)[:, None] * self.W_in.T
        if self.x_hat is not None and self.along is not None:
            inner = inner - (self.slope * self.along).T @ self.x_hat / self.x_hat.numel()
        return self.W_out.T @ inner

    def _lost(self) -> Float[Tensor, " n_inputs"]:
        """c = (2 - |x̂|²/d) / d, with P² = I - 11ᵀ/d - c x̂x̂ᵀ for P = I - 11ᵀ/d - x̂x̂ᵀ/d; of an RMS norm both
        are without 11ᵀ/d."""
        assert self.x_hat is not None
        d = self.x_hat.shape[1]
        return (2 - self.x_hat.square().sum(1) / d) / d

    def second_moments(self) -> tuple[Float[Tensor, "d_in d_in"], Float[Tensor, "d_out d_out"]]:
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

    def scaled(self, by: Float[Tensor, " n_inputs"]) -> "OfMLP":
        return self._with(self.slope * by[:, None].to(self.slope.dtype), self.x_hat, self.along)

    def to(self, dtype: torch.dtype) -> "OfMLP":
        x_hat, along = (None if t is None else t.to(dtype) for t in (self.x_hat, self.along))
        weights = Weights(*(t.to(dtype) for t in (self.W_in, self.weights.b_in, self.W_out)))
        return self._with(self.slope.to(dtype), x_hat, along, weights)

    def _with(
        self,
        slope: Float[Tensor, "n_inputs m"],
        x_hat: Float[Tensor, "n_inputs d_model"] | None,
        along: Float[Tensor, "n_inputs m"] | None,
        weights: Weights | None = None,
    ) -> "OfMLP":
        found = object.__new__(OfMLP)
        found._set(weights or self.weights, slope, x_hat, along)
        return found
