"""Computing on two numbers that share one: what networks need for x + y, x·y and x > y, and what their hidden units hold.

The grids: x in {0, 1/Z, …, (Z - 1)/Z}, y in {0, .1, …, .9}; the code t = (floor(Z x) + y) / Z, with Z = 10 the source's. The
linear code of the same is the pair (x, y). A net computes a function when its output is within .05 of it, half of one decimal,
at all 10 Z points; x > y: when it is on the right side of ½.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.toy.networks import Networks, fit
from pipeline.toy.representations.compression import pack
from pipeline.toy.representations.reading import held_out_r2
from stores.manifest import seed_of

FUNCTIONS = ("x + y", "x · y", "x > y")
OTHER = "another function of t"
DECODED, NOT_DECODED = 0.9, 0.5  # R² of y


def grid(base: int, n_y: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and the code t, (base · n_y,) float64 each, in the order of t. n_y: values of y in [0, .9], or 10."""
    steps = torch.arange(n_y, dtype=torch.double)
    y = steps / 10 if n_y == 10 else 0.9 * steps / (n_y - 1)
    x, y = torch.cartesian_prod(torch.arange(base, dtype=torch.double) / base, y).T
    return x, y, pack(x, y, base)


def value(name: str, x: Tensor, y: Tensor, base: int = 10) -> Tensor:
    """OTHER: a sawtooth with as many teeth as t has, that begin halfway between those of y."""
    if name == OTHER:
        return (base * pack(x, y, base) + 0.5) % 1
    return {"x + y": x + y, "x · y": x * y, "x > y": (x > y).to(x)}[name]


def computed(name: str, out: Tensor, right: Tensor) -> Tensor:
    """Whether a net computes it: (n, points) → (n,)."""
    good = ((out > 0.5) == (right > 0.5)) if name == "x > y" else ((out - right).abs() < 0.05)
    return good.all(-1)


def hinges(t: Tensor, f: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One hidden layer of ReLUs of t alone that is f at all points: f(t) = c + Σ_i w_i ReLU(t - b_i).

    t (n,) rising, f (n,) → b, w (units), c. One unit at the first point, one wherever the slope changes.
    """
    slope = f.diff() / t.diff()
    change = torch.cat([slope[:1], slope.diff()])
    used = change.abs() > 1e-6
    used[0] = True
    return t[:-1][used], change[used], f[0]


def runs(f: Tensor) -> int:
    """How often f turns from rising to falling or back: a net of n ReLUs of one number turns at most n times."""
    steps = f.diff()
    steps = steps[steps.abs() > 1e-9].sign()
    return int((steps.diff() != 0).sum())


def by_hand(bases: tuple[int, ...]) -> dict[str, Any]:
    """Nets written down for each Z: units, error, and the least number of units that can do it in one layer."""
    found: dict[str, Any] = {name: [] for name in FUNCTIONS}
    for base in bases:
        x, y, t = grid(base)
        for name in FUNCTIONS:
            f = value(name, x, y)
            at, weight, start = hinges(t, f)
            out = start + (t[:, None] - at).relu() @ weight
            found[name].append([len(at), float((out - f).abs().max()), runs(f)])
    return {"base": list(bases), "found": found}


def _trained(
    inputs: Tensor, targets: Tensor, widths: tuple[int, ...], n_steps: int, seed: int
) -> tuple[Networks, Tensor, Networks]:
    """Nets for standardised targets (n, points): trained, their outputs in the targets' units, and as they began."""
    generator = torch.Generator().manual_seed(seed)
    networks = Networks.drawn(len(targets), (inputs.shape[1], *widths, 1), generator)
    if inputs.shape[1] == 1:  # the kinks of the first layer lie evenly over the range, not all at its middle
        with torch.no_grad():
            W, b = networks.weights[0], networks.biases[0]
            W.copy_(W.sign())
            b.copy_((2 * torch.rand(b.shape, generator=generator) - 1) * inputs.abs().max())
    began = Networks([W.detach().clone() for W in networks.weights], [b.detach().clone() for b in networks.biases])
    mean, scale = targets.mean(1, keepdim=True), targets.std(1, keepdim=True)
    y = ((targets - mean) / scale).float()
    fit(networks, lambda _: (inputs, y), n_steps, 1e-2)
    with torch.no_grad():
        out = networks(inputs)[..., 0].double() * scale + mean
    return networks, out, began


def scaled(t: Tensor, base: int) -> Tensor:
    """t as nets get it: (n, 1), in ±Z/2, so that each of the Z pieces of the code has the length 1."""
    return (base * (t - 0.5))[:, None].float()


def sizes(bases: tuple[int, ...], widths: tuple[int, ...], n_steps: int, n_seeds: int) -> dict[str, Any]:
    """How many nets of one size learn the functions from t, for several Z, and from the linear code."""
    found: dict[str, Any] = {"base": list(bases), "widths": list(widths), "code": {}, "linear": {}}
    for base in bases:
        x, y, t = grid(base)
        targets = torch.stack([value(name, x, y) for name in FUNCTIONS]).repeat_interleave(n_seeds, 0)
        codes = {"code": scaled(t, base), "linear": 2 * torch.stack([x, y], dim=1).float() - 1}
        for code, inputs in codes.items():
            if code == "linear" and base != max(bases):
                continue
            out = _trained(inputs, targets, widths, n_steps, seed_of("sizes", code, base))[1].view(3, n_seeds, -1)
            right = targets.view(3, n_seeds, -1)
            found[code][str(base)] = {
                name: computed(name, out[i], right[i]).tolist() for i, name in enumerate(FUNCTIONS)
            }
    return found


def regimes(base: int, widths: tuple[int, ...], n_steps: int, n_seeds: int) -> dict[str, Any]:
    """Of nets that learn a function of t: R² of y, read linearly from each hidden layer, before and after training.

    From t itself y is read with R² = .01 at Z = 10: x is nearly t, so that only y tells whether t was taken apart. Read on y in
    steps of .01, 91 points a piece, of which training saw every tenth.
    """
    x, y, t = grid(base)
    names = (*FUNCTIONS, OTHER)
    targets = torch.stack([value(name, x, y, base) for name in names]).repeat_interleave(n_seeds, 0)
    networks, out, began = _trained(scaled(t, base), targets, widths, n_steps, seed_of("regimes"))
    _, fine_y, fine_t = grid(base, 91)
    inputs = scaled(fine_t, base)
    with torch.no_grad():
        layers = [
            torch.stack([held_out_r2(h, fine_y) for h in net.layers(inputs)[:-1]], 1) for net in (networks, began)
        ]
    after, before = (r2.view(len(names), n_seeds, -1) for r2 in layers)
    split = {name: slice(i * n_seeds, (i + 1) * n_seeds) for i, name in enumerate(names)}
    return {
        "base": base,
        "widths": list(widths),
        "r2_of_t": float(held_out_r2(inputs[None], fine_y)),
        "computed": {name: computed(name, out[rows], targets[rows]).tolist() for name, rows in split.items()},
        "r2": {name: after[i].tolist() for i, name in enumerate(names)},
        "r2_before": {name: before[i].tolist() for i, name in enumerate(names)},
    }
