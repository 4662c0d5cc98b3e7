"""Two numbers in one: a code that is not linear, a linear one, and what networks learn.

t = (floor(Z x) + y) / Z (Elhage et al. 2022, "Toy Models of Superposition", on non-linear compression). Where x has steps of
1 / Z, as in the source's example, floor(Z x) = Z x: the code is then the linear map t = x + y / Z, and only its decoding is
not linear.
"""

import math
from typing import Any

import torch
from torch import Tensor

from pipeline.toy.networks import Networks, minimise
from stores.manifest import seed_of

BASE = 10  # Z of the compression: one decimal


def pack(x: Tensor, y: Tensor, base: int = BASE) -> Tensor:
    """t = (floor(Z x) + y) / Z: two numbers in one, for y < 1."""
    return ((base * x + 1e-9).floor() + y) / base  # 1e-9: 0.29 · 100 is 28.999…


def unpack(t: Tensor, base: int = BASE) -> tuple[Tensor, Tensor]:
    """x to one decimal of base Z, and y."""
    whole = (base * t + 1e-9).floor()
    return whole / base, base * t - whole


def pack_rounded(x: float, y: float, decimals: int) -> float:
    """The source's arithmetic: Z = 10^decimals, floats as they come, t rounded to twice the decimals."""
    base = 10**decimals
    return round((math.floor(base * x) + y) / base, 2 * decimals)


def unpack_rounded(t: float, decimals: int) -> tuple[float, float]:
    """The source's way back: both numbers rounded to the decimals."""
    base = 10**decimals
    y = base * t - math.floor(base * t)
    return round(t - y / base, decimals), round(y, decimals)


def came_back(decimals: int, n_most: int = 10_000) -> tuple[int, int]:
    """How many pairs of numbers in [0, 1) of so many decimals the source's arithmetic gives back, and of how many.

    All pairs, or where there are more, n_most drawn ones."""
    base = 10**decimals
    if base**2 <= n_most:
        pairs = [(i, j) for i in range(base) for j in range(base)]
    else:
        generator = torch.Generator().manual_seed(seed_of("came back", decimals))
        pairs = torch.randint(base, (n_most, 2), generator=generator).tolist()
    good = 0
    for i, j in pairs:
        x, y = i / base, j / base
        good += unpack_rounded(pack_rounded(x, y, decimals), decimals) == (x, y)
    return good, len(pairs)


def compression(width: int, n_steps: int, n_seeds: int) -> dict[str, Any]:
    """The floor-based map, the best linear one, and trained ReLU nets with one number, and with two, in their middle."""
    tenths = torch.arange(10, dtype=torch.double) / 10
    xy = torch.cartesian_prod(tenths, tenths)
    maps = {"floor": torch.stack(unpack(pack(xy[:, 0], xy[:, 1])), dim=1)[None], "best linear": _linear(xy)[None]}
    trained = {d: _autoencoders(d, width, n_steps, n_seeds) for d in (1, 2)}
    with torch.no_grad():
        for d, (encoder, decoder) in trained.items():
            maps[f"ReLU nets, {d}"] = decoder(encoder(xy.float())).double()
        best = int((maps["ReLU nets, 1"] - xy).square().mean((1, 2)).argmin())
        encoder, decoder = trained[1]
        code = encoder(xy.float())[best, :, 0]
        steps = torch.linspace(float(code.min()), float(code.max()), 400)
        curve = decoder(steps[:, None])[best]
    example = [pack_rounded(x, y, 1) for x, y in ((0.3, 0.2), (0.6, 0.8))]
    return {
        "example": example,
        "example_back": [list(unpack_rounded(t, 1)) for t in example],
        "came_back": {str(decimals): came_back(decimals) for decimals in (1, 2, 3)},
        "code_is_linear_by": float(
            (pack(xy[:, 0], xy[:, 1]) - xy @ torch.tensor([1.0, 0.1], dtype=torch.double)).abs().max()
        ),
        "over": [[y, *(float(v) for v in unpack(pack(torch.tensor(0.3), torch.tensor(y))))] for y in (0.2, 0.9, 1.2)],
        "recovered": {name: ((out - xy).abs() < 0.05 - 1e-9).all(2).sum(1).tolist() for name, out in maps.items()},
        "greatest_error": {name: (out - xy).abs().amax((1, 2)).tolist() for name, out in maps.items()},
        "mse": {name: (out - xy).square().mean((1, 2)).tolist() for name, out in maps.items()},
        "linear_r2": {str(d): _linearity(encoder).tolist() for d, (encoder, _) in trained.items()},
        "curves": {
            "floor": torch.stack(unpack(torch.linspace(0, 1, 400, dtype=torch.double)), dim=1).tolist(),
            "best ReLU net": curve.tolist(),
            "best linear": [[0.0, 0.0], [0.9, 0.9]],
        },
    }


def _linear(xy: Tensor) -> Tensor:
    """The best linear map of uniform numbers keeps their sum, or any other one direction: the covariance is isotropic."""
    mean = xy.mean(0)
    direction = torch.tensor([1.0, 1.0], dtype=torch.double) / 2**0.5
    return (xy - mean) @ direction[:, None] * direction + mean


def _autoencoders(d: int, width: int, n_steps: int, n_seeds: int) -> tuple[Networks, Networks]:
    """2 → width → width → d → width → width → 2, ReLU but at d and at the end, trained on uniform pairs in [0, 1)²."""
    generator = torch.Generator().manual_seed(seed_of("compression", d))
    encoder = Networks.drawn(n_seeds, (2, width, width, d), generator)
    decoder = Networks.drawn(n_seeds, (d, width, width, 2), generator)

    def losses(_: int) -> Tensor:
        x = torch.rand(n_seeds, 64, 2, generator=generator)
        return (decoder(encoder(x)) - x).square().mean((1, 2))

    minimise([*encoder.parameters(), *decoder.parameters()], losses, n_steps, 1e-2)
    return encoder, decoder


@torch.no_grad()
def _linearity(encoder: Networks) -> Tensor:
    """R² of the code as a linear function of x and y in [0, 1)², (n,): 1 where the code is linear."""
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(seed_of("linearity")))
    code = encoder(x).double()
    code = code - code.mean(1, keepdim=True)
    design = (x - x.mean(0)).double()
    fitted = design @ torch.linalg.lstsq(design.expand(len(code), -1, -1), code).solution
    return 1 - (code - fitted).square().sum((1, 2)) / code.square().sum((1, 2)).clamp_min(1e-12)
