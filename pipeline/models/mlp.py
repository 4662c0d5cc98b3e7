"""The MLP of a GPT-2 block as plain tensors, with the layer norm that it reads through."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MLP:
    """y = gelu(u W_in + b_in) W_out + b_out, where u = gain ∘ x̂ + offset and x̂ is x less its mean, over σ.

    W_in (d_model, d_mlp), b_in (d_mlp), W_out (d_mlp, d_model), b_out, gain, offset (d_model). gelu is GPT-2's, with tanh
    (Hendrycks and Gimpel 2016); σ² is the variance of x over its coordinates, plus eps.
    """

    W_in: Tensor
    b_in: Tensor
    W_out: Tensor
    b_out: Tensor
    gain: Tensor
    offset: Tensor
    eps: float = 1e-5

    @property
    def d_model(self) -> int:
        return len(self.W_in)

    @property
    def d_mlp(self) -> int:
        return len(self.W_out)

    def to(self, device: str | torch.device, dtype: torch.dtype) -> "MLP":
        tensors = (self.W_in, self.b_in, self.W_out, self.b_out, self.gain, self.offset)
        W_in, b_in, W_out, b_out, gain, offset = (t.to(device, dtype) for t in tensors)
        return MLP(W_in, b_in, W_out, b_out, gain, offset, self.eps)

    def normalise(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (…, d_model) → x̂ (…, d_model), σ (…, 1)."""
        sigma = (x.var(-1, correction=0, keepdim=True) + self.eps).sqrt()
        return (x - x.mean(-1, keepdim=True)) / sigma, sigma

    def read(self, x: Tensor) -> Tensor:
        """x (…, d_model) on the residual stream → u, what the MLP reads."""
        return self.normalise(x)[0] * self.gain + self.offset

    def write(self, u: Tensor) -> Tensor:
        """u (…, d_model) → y (…, d_model), what the MLP adds to the residual stream."""
        pre = u @ self.W_in + self.b_in
        return torch.nn.functional.gelu(pre, approximate="tanh") @ self.W_out + self.b_out

    def __call__(self, x: Tensor) -> Tensor:
        return self.write(self.read(x))

    def rotated(self, R_in: Tensor, R_out: Tensor) -> "MLP":
        """The same function seen in other coordinates: write(R_in u) of it is R_out · write(u) of this one.

        Its read is not of use: a layer norm's gain does not commute with a rotation.
        """
        W_out, b_out = self.W_out @ R_out.T, R_out @ self.b_out
        return MLP(R_in @ self.W_in, self.b_in, W_out, b_out, self.gain, self.offset, self.eps)
