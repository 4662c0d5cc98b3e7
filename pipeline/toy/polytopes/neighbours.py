"""Across a boundary: how much the affine maps of neighbouring polytopes differ, and how constrained that is.

The maps of two neighbours differ by a matrix of rank one: what the neuron that turned on reads, and what it writes.
relative_difference does not grow with the weights, and is at most 2 however large one neuron's weights are.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.toy.polytopes.nets import NetSettings, ReluNets, drawn, pairs, trained
from stores.manifest import seed_of

CROSSED = (1, 2, 4, 8, 16, 32)  # boundaries, after which maps are compared
_N_PATHS = 10  # of each net, that are held at once


def relative_difference(A: Tensor, B: Tensor) -> Tensor:
    """|A - B|_F / √((|A|_F² + |B|_F²) / 2), in 0 … 2; √2 for orthogonal matrices of one norm.

    A, B: (…, d_out, d_in) → (…). nan where both are 0.
    """
    size = (A.square().sum((-2, -1)) + B.square().sum((-2, -1))) / 2
    return (A - B).norm(dim=(-2, -1)) / size.sqrt()


def scaled(nets: ReluNets, factor: float) -> ReluNets:
    """All weights times the factor, and layer l's biases times factor^l: the codes of all inputs stay as they are."""
    return ReluNets(
        [W.detach() * factor for W in nets.weights],
        [b.detach() * factor ** (i + 1) for i, b in enumerate(nets.biases)],
    )


def single(codes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Of each path one step that crosses a single boundary: the codes on its two sides, (n, batch, units), and which unit
    turned, (n, batch); -1 where the path has no such step. codes: (n, batch, n_steps + 1, units)."""
    changed = codes[:, :, 1:] != codes[:, :, :-1]
    one = changed.sum(3) == 1
    step = torch.where(one, torch.rand(one.shape, generator=generator), -1.0).argmax(2)
    unit = _at(changed, step).int().argmax(2)
    return _at(codes, step), _at(codes, step + 1), torch.where(one.any(2), unit, -1)


def after(codes: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The codes of paths where n boundaries are crossed first, (n, batch, units), and whether so many are, (n, batch)."""
    crossed = (codes[:, :, 1:] != codes[:, :, :-1]).sum(3).cumsum(2)
    step = (crossed < n).sum(2)
    return _at(codes, (step + 1).clamp_max(crossed.shape[2])), step < crossed.shape[2]


def _at(values: Tensor, step: Tensor) -> Tensor:
    """values (n, batch, steps, units), step (n, batch) → (n, batch, units)"""
    return values.gather(2, step[..., None, None].expand(-1, -1, 1, values.shape[3]))[:, :, 0]


def _maps_differ(nets: ReluNets, a: Tensor, b: Tensor) -> Tensor:
    return relative_difference(nets.affine(a)[0], nets.affine(b)[0])


@torch.no_grad()
def _walked(nets: ReluNets, start: Tensor, stop: Tensor, n_steps: int, generator: torch.Generator) -> dict[str, Tensor]:
    """What is compared on paths from start to stop, (n, batch, d_in): (n, batch) each, by_number (n, batch, CROSSED)."""
    codes = torch.stack([nets.code(torch.lerp(start, stop, t)) for t in torch.linspace(0, 1, n_steps + 1)], dim=2)
    here, there, unit = single(codes, generator)
    A, B = nets.affine(here)[0], nets.affine(there)[0]
    large = scaled(nets, 10.0)
    A10, B10 = large.affine(here)[0], large.affine(there)[0]
    found = relative_difference(A, B)
    by_number = []
    for n in CROSSED:
        code, reached = after(codes, n)
        by_number.append(torch.where(reached, _maps_differ(nets, codes[:, :, 0], code), torch.nan))
    values = torch.linalg.svdvals(A[:, :1] - B[:, :1])  # one path of each net in a chunk: its rank is looked at
    return {
        "unit": unit,
        "neighbours": torch.where(unit >= 0, found, torch.nan),
        "random": _maps_differ(nets, codes[:, :, 0], codes[:, :, -1]),
        "by_number": torch.stack(by_number, dim=2),
        "second": torch.where(unit[:, :1] >= 0, values[..., 1] / values[..., 0], torch.nan),
        "grows": torch.where(unit >= 0, (A10 - B10).norm(dim=(2, 3)) / (A - B).norm(dim=(2, 3)), torch.nan),
        "changes": torch.where(unit >= 0, (relative_difference(A10, B10) - found).abs(), torch.nan),
    }


def _compared(settings: NetSettings, nets: ReluNets) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed_of("neighbours"))
    chunks = zip(*(x.double().split(_N_PATHS, dim=1) for x in pairs(settings, same=False)))
    walked = [_walked(nets, start, stop, settings.path_steps, generator) for start, stop in chunks]
    found = {name: torch.cat([chunk[name] for chunk in walked], dim=1) for name in walked[0]}
    layer = torch.bucketize(found["unit"], torch.tensor(nets.widths).cumsum(0), right=True)
    second = found["second"][~found["second"].isnan()]  # nan: a neuron that nothing follows changes no map
    median = {name: found[name].nanmedian(1).values for name in ("neighbours", "random", "by_number", "grows")}
    return {
        "neighbours": median["neighbours"].tolist(),
        "random": median["random"].tolist(),
        "ratio": (median["neighbours"] / median["random"]).tolist(),
        "by_layer": [
            float(torch.where(layer == i, found["neighbours"], torch.nan).nanmedian()) for i in range(len(nets.widths))
        ],
        "by_number": median["by_number"].T.tolist(),
        "second_singular_value": float(second.max()),
        "n_ranked": len(second),
        "greatest": _largest(found["neighbours"]),
        "frobenius_grows": median["grows"].tolist(),
        "relative_changes": _largest(found["changes"]),
    }


def _largest(x: Tensor) -> float:
    return float(x[~x.isnan()].max())


def neighbours(settings: NetSettings) -> dict[str, Any]:
    """Relative differences of the maps of neighbouring polytopes and of random pairs, before and after training.

    Random pairs are those of the two digits that a path joins. neighbours, random, ratio: the medians of each net; by_number:
    (CROSSED, n_nets); frobenius_grows: by what the difference's norm grows when all weights are ten times as large.
    """
    return {
        "crossed": list(CROSSED),
        "n_hidden_layers": len(settings.widths),
        **{
            state: _compared(settings, nets.double())
            for state, nets in (("trained", trained(settings)), ("untrained", drawn(settings)))
        },
    }
