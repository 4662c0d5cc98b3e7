"""Jacobians of a batch of inputs, formed only where they are small.

All have one interface: d_in, d_out, n_inputs, and what a solver asks of them. A product left J right is never larger than
the columns that are asked for: J of GPT-2 small's MLP has 590,000 entries for each input.
"""

from collections.abc import Callable, Iterator
from typing import Protocol, Self, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@runtime_checkable
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

    def product(
        self,
        left: Float[Tensor, "a d_out"] | None,
        right: Float[Tensor, "d_in b"] | None,
        columns: Int64[Tensor, "n_inputs c"] | None = None,
    ) -> Float[Tensor, "n_inputs _ _"]:
        """left (a, d_out), right (d_in, b) → left J right (n_inputs, a, b), or of each input only its columns, (n_inputs, c)
        indices below b: (n_inputs, a, c). None: the identity. Differentiable by left and right."""
        ...

    def squared_norms(self) -> Float[Tensor, " n_inputs"]:
        """|J|_F²: exact."""
        ...

    def mean(self) -> Float[Tensor, "d_out d_in"]:
        """E[J] over the inputs: exact."""
        ...

    def second_moments(self) -> tuple[Float[Tensor, "d_in d_in"], Float[Tensor, "d_out d_out"]]:
        """E[JᵀJ] and E[JJᵀ] over the inputs: exact."""
        ...

    def rows(self, start: int, stop: int) -> Self:
        """Those of the inputs start ≤ i < stop."""
        ...

    def scaled(self, by: Float[Tensor, " n_inputs"]) -> Self:
        """Each input's Jacobian times its number in by."""
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


def sampled_columns(n_inputs: int, d: int, c: int, seed: int) -> Int64[Tensor, "{n_inputs} {c}"]:
    """Indices below d, for each input c different ones, each set as likely as any other.

    So d/c times a sum over the columns drawn is, in expectation, the sum over all.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_inputs, d, generator=generator).topk(c, dim=1).indices


class Dense:
    """Jacobians that are there. Activations x are the case d_in = 1: R x = R J."""

    def __init__(self, J: Float[Tensor, "n_inputs d_out d_in"]) -> None:
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

    def product(
        self,
        left: Float[Tensor, "a d_out"] | None,
        right: Float[Tensor, "d_in b"] | None,
        columns: Int64[Tensor, "n_inputs c"] | None = None,
    ) -> Float[Tensor, "n_inputs _ _"]:
        found = self.J
        if left is not None and not left.requires_grad:  # first: a gradient by right need not pass through it
            found, left = (found.mT @ left.T).mT, None  # the matrix last: one product for all inputs
        if right is not None:
            found = found @ (right if columns is None else right.T[columns].mT)
        elif columns is not None:
            found = found.gather(2, columns[:, None].expand(-1, found.shape[1], -1))
        return found if left is None else (found.mT @ left.T).mT

    def squared_norms(self) -> Float[Tensor, " n_inputs"]:
        return self.J.square().sum((1, 2))

    def mean(self) -> Float[Tensor, "d_out d_in"]:
        return self.J.mean(0)

    def second_moments(self) -> tuple[Float[Tensor, "d_in d_in"], Float[Tensor, "d_out d_out"]]:
        n = len(self.J)
        stacked, side = self.J.flatten(0, 1), self.J.mT.flatten(0, 1)
        return stacked.T @ stacked / n, side.T @ side / n

    def rows(self, start: int, stop: int) -> "Dense":
        return Dense(self.J[start:stop])

    def scaled(self, by: Float[Tensor, " n_inputs"]) -> "Dense":
        return Dense(self.J * by[:, None, None].to(self.J.dtype))

    def to(self, dtype: torch.dtype) -> "Dense":
        return Dense(self.J.to(dtype))


def of_module(module: Callable[[Tensor], Tensor], x: Float[Tensor, "n_inputs d_in"]) -> Dense:
    """Jacobians of any function of one row, (d_in) → (d_out), at the rows of x: torch.func."""
    return Dense(torch.func.vmap(torch.func.jacrev(module))(x).detach())
