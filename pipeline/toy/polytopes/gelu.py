"""GELU's affine map as an expectation over spline codes, each weighted by the probability that the input has it.

    gelu(h) = h q, q = ½ (1 + tanh u), u = √(2/π) (h + 0.044715 h³): the soft code; gates s_i ~ Bernoulli(q_i), independent
    one layer: Σ over all 2^n codes s of P(s) W_2 diag(s) W_1 = W_2 diag(q) W_1

Source: Balestriero and Baraniuk 2018, arXiv:1810.09274, as Black et al. 2022, Appendix C, state it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.activation_functions import gelu_new_slope
from pipeline.toy.polytopes.nets import NetSettings, ReluNets
from stores.manifest import seed_of

N_UNITS = 10  # of the single layer: 2^10 codes
N_DEEP = 4  # of each of several layers: 2^(4 · 3) codes of three
_D_IN, _D_OUT = 6, 4


def soft_code(h: Tensor) -> Tensor:
    """GPT-2's GELU as a gate: gelu(h) = h q, q = ½ (1 + tanh u), u = √(2/π) (h + 0.044715 h³). Not its slope."""
    return 0.5 * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (h + 0.044715 * h**3)))


def all_codes(n: int) -> Tensor:
    """(2^n, n) of 0 and 1, float64."""
    return (torch.arange(2**n)[:, None] >> torch.arange(n) & 1).double()


def probabilities(q: Tensor, codes: Tensor) -> Tensor:
    """q (…, n), codes (K, n) → (…, K): Π q_i where s_i = 1, times Π (1 - q_i) where s_i = 0."""
    q = q[..., None, :]
    return torch.where(codes > 0, q, 1 - q).prod(-1)


class GeluNets(ReluNets):
    """The same networks with GPT-2's GELU between the layers."""

    def pre_activations(self, x: Tensor, factor: float = 1.0) -> list[Tensor]:
        """(n, batch, d_l) of each layer; factor scales the first hidden layer."""
        h = x if x.ndim == 3 else x.expand(len(self.weights[0]), *x.shape)
        pre = []
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            pre.append(torch.baddbmm(b, h, W))
            h = pre[-1] * soft_code(pre[-1]) * (factor if i == 0 else 1.0)
        return pre

    def soft_codes(self, x: Tensor) -> Tensor:
        """(n, batch, Σ hidden widths), in (0, 1)"""
        return torch.cat([soft_code(z) for z in self.pre_activations(x)[:-1]], dim=2)


def _nets(widths: tuple[int, ...], n: int) -> tuple[GeluNets, Tensor]:
    """Random networks with pre-activations of order 1, and an input of each: float64."""
    generator = torch.Generator().manual_seed(seed_of("gelu", *widths))
    nets = GeluNets.drawn(n, widths, generator)
    assert isinstance(nets, GeluNets)
    nets.double().requires_grad_(False)
    for W in nets.weights:
        W *= 3**0.5  # rows of norm 1
    return nets, torch.randn(n, 1, widths[0], generator=generator).double()


def gate() -> dict[str, Any]:
    """q and the slope of GPT-2's GELU, against torch's."""
    h = torch.linspace(-5, 5, 101, dtype=torch.double, requires_grad=True)
    value = nn.functional.gelu(h, approximate="tanh")
    (slope,) = torch.autograd.grad(value.sum(), h)
    with torch.no_grad():
        q, own = soft_code(h), gelu_new_slope(h)
        return {
            "h": h.tolist(),
            "q": q.tolist(),
            "slope": own.tolist(),
            "value_error": float((h * q - value).abs().max()),
            "slope_error": float((own - slope).abs().max()),
            "slope_range": [float(own.min()), float(own.max())],
        }


@torch.no_grad()
def one_layer(n_nets: int) -> dict[str, Any]:
    """The sum over all codes of one hidden layer against the soft code's map and against the network itself.

    map_error, value_error: the largest |difference|. slope: relative Frobenius difference of the soft code's map from the
    Jacobian, (n_nets).
    """
    nets, x = _nets((_D_IN, N_UNITS, _D_OUT), n_nets)
    codes, q = all_codes(N_UNITS), nets.soft_codes(x)
    weight = probabilities(q[:, 0], codes)  # (n, 2^units)
    A, c = nets.affine(codes.expand(n_nets, -1, -1))
    A_mean, c_mean = torch.einsum("nk,nkoi->noi", weight, A), torch.einsum("nk,nko->no", weight, c)
    A_soft, _ = nets.affine(q)
    out = torch.einsum("noi,nbi->nbo", A_mean, x)[:, 0] + c_mean
    slope = gelu_new_slope(nets.pre_activations(x)[0])
    jacobian, _ = nets.affine(slope)
    return {
        "n_nets": n_nets,
        "n_codes": len(codes),
        "map_error": float((A_mean - A_soft[:, 0]).abs().max()),
        "value_error": float((out - nets(x)[:, 0]).abs().max()),
        "slope": ((jacobian - A_soft).norm(dim=(2, 3)) / jacobian.norm(dim=(2, 3)))[:, 0].tolist(),
    }


@torch.no_grad()
def layers(n_layers: int, n_nets: int) -> dict[str, Any]:
    """Several hidden layers: the sum over the codes of all of them at once, in two readings of a code's probability.

    held: every gate has the probability that the network's own forward gives it; the largest |difference| of the expected
    output from the network's. followed (n_nets): a layer's probabilities follow from what the drawn gates before it let
    through; |expected output - network's| / |network's output - its last bias|.
    """
    nets, x = _nets((_D_IN, *[N_DEEP] * n_layers, _D_OUT), n_nets)
    codes = all_codes(N_DEEP * n_layers)
    each = codes.expand(n_nets, -1, -1)
    A, c = nets.affine(each)
    outputs = torch.einsum("nkoi,ni->nko", A, x[:, 0]) + c
    held = probabilities(nets.soft_codes(x)[:, 0], codes)
    followed, h = torch.ones_like(held), x
    for W, b, s in zip(nets.weights, nets.biases, each.split(N_DEEP, dim=2)):
        h = torch.baddbmm(b, h, W)  # one row before the first gates are drawn, a row for each code after
        q = soft_code(h)
        followed = followed * torch.where(s > 0, q, 1 - q).prod(2)
        h = h * s
    out = nets(x)[:, 0]
    by_held, by_followed = (torch.einsum("nk,nko->no", weight, outputs) for weight in (held, followed))
    size = (out - nets.biases[-1][:, 0]).norm(dim=1)
    return {
        "n_layers": n_layers,
        "n_codes": len(codes),
        "held": float((by_held - out).abs().max()),
        "followed": ((by_followed - out).norm(dim=1) / size).tolist(),
        "total": float((followed.sum(1) - 1).abs().max()),
    }


def gelu(settings: NetSettings) -> dict[str, Any]:
    """The gate; one layer's expectation; 1 to 3 layers'."""
    return {
        "gate": gate(),
        "one_layer": one_layer(settings.n_nets),
        "layers": [layers(n, settings.n_nets) for n in (1, 2, 3)],
    }
