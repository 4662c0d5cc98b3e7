"""Where the boundaries of the polytopes lie: on paths between digits, and by distance from a centre.

A boundary is crossed where one neuron's bit of the spline code changes. Density: boundaries crossed a unit of length.
"""

from typing import Any

import torch
from torch import Tensor

from pipeline.toy.polytopes.nets import N_PLACES, NetSettings, ReluNets, drawn, pairs, trained, unseen
from stores.manifest import seed_of

# of the spheres around a centre, in mean distances of a digit from the origin
RADII = (0.01, 0.03, 0.06, 0.1, 0.15, 0.22, 0.32, 0.46, 0.68, 1.0, 1.5, 2.2, 4.0, 8.0, 16.0, 32.0)
SEGMENT = 0.02  # length of the short segments that density is counted on, in the same unit


@torch.no_grad()
def flips(nets: ReluNets, start: Tensor, stop: Tensor, n_steps: int) -> Tensor:
    """Boundaries crossed on the straight paths from start to stop, (n, batch, d_in) or (batch, d_in) each: (n, batch,
    n_steps, hidden layers), int16. A neuron that turns twice within a step is not seen."""
    crossed = []
    code = nets.code(start)
    for t in torch.linspace(0, 1, n_steps + 1)[1:]:
        following = nets.code(torch.lerp(start, stop, t))
        changed = (following != code).split(nets.widths, dim=2)
        crossed.append(torch.stack([layer.sum(2, dtype=torch.int16) for layer in changed], dim=2))
        code = following
    return torch.stack(crossed, dim=2)


def profile(crossed: Tensor, length: Tensor, n_places: int = N_PLACES) -> Tensor:
    """Density at each of n_places equal parts of a path; their mean is the path's density.

    crossed (…, n_steps), length (…) → (…, n_places). Raises ValueError: the steps do not part evenly.
    """
    n_steps = crossed.shape[-1]
    if n_steps % n_places:
        raise ValueError(f"{n_steps} steps do not make {n_places} equal places: take a multiple")
    return crossed.double().unflatten(-1, (n_places, -1)).sum(-1) * n_places / length.double()[..., None]


def density(settings: NetSettings) -> dict[str, Any]:
    """Boundaries crossed a unit of length between digits of one class and of two, before and after training.

    Of each kind of nets and of paths: density (n_nets), along (N_PLACES) their mean at each place, by_layer (layers).
    """
    found: dict[str, Any] = {}
    for state, nets in (("trained", trained(settings)), ("untrained", drawn(settings))):
        found[state] = {}
        for name, same in (("within a class", True), ("between classes", False)):
            start, stop = pairs(settings, same)
            length = (stop - start).norm(dim=2)
            crossed = flips(nets, start, stop, settings.path_steps)
            along = profile(crossed.sum(3), length)
            by_layer = crossed.sum(2).double() / length[..., None]
            found[state][name] = {
                "density": along.mean((1, 2)).tolist(),
                "along": along.mean((0, 1)).tolist(),
                "by_layer": by_layer.mean((0, 1)).tolist(),
            }
    return found


@torch.no_grad()
def around(
    nets: ReluNets, centre: Tensor, radius: float, length: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """The boundaries near a sphere. centre: (n, batch, d_in), one for each segment.

    A segment begins at a random place of the sphere and points in a random direction. density (n): boundaries crossed a
    unit of its length. reached (n): share of the neurons that are on at one of the places and off at another: of those
    the boundary meets the sphere.
    """
    on_sphere, direction = torch.nn.functional.normalize(torch.randn(2, *centre.shape, generator=generator), dim=-1)
    place = centre + radius * on_sphere
    code, after = (nets.code(x) for x in (place - length / 2 * direction, place + length / 2 * direction))
    return {
        "density": (code != after).sum(2).double().mean(1) / length,
        "reached": (code.any(1) & ~code.all(1)).double().mean(1),
    }


def shell(settings: NetSettings) -> dict[str, Any]:
    """Boundaries by distance from the origin, from the mean digit and from single digits, before and after training.

    unit: mean distance of a digit from the origin, that radii are given in. Of each kind of nets and centre: density, a unit,
    and reached, means by radius; densest: the radius of the greatest density; inner, outer (n_nets): density at the first
    and the last radius over that at the densest; farthest (n_nets): reached at the last radius over that where it is
    greatest.
    """
    x, _ = unseen(settings)
    unit = float(x.norm(dim=1).mean())
    generator = torch.Generator().manual_seed(seed_of("shell"))
    rows = torch.randint(len(x), (settings.n_nets, settings.n_segments), generator=generator)
    centres = {
        "the origin": torch.zeros_like(x[rows]),
        "the mean digit": x.mean(0).expand(*rows.shape, -1),
        "a digit": x[rows],
    }
    found: dict[str, Any] = {
        "unit": unit,
        "radii": list(RADII),
        "spread": float((x - x.mean(0)).norm(dim=1).mean()) / unit,
    }
    for state, nets in (("trained", trained(settings)), ("untrained", drawn(settings))):
        found[state] = {}
        for name, centre in centres.items():
            spheres = [around(nets, centre, r * unit, SEGMENT * unit, generator) for r in RADII]
            found[state][name] = _summary(
                torch.stack([sphere["density"] for sphere in spheres]) * unit,
                torch.stack([sphere["reached"] for sphere in spheres]),
            )
    return found


def _summary(density: Tensor, reached: Tensor) -> dict[str, Any]:
    """density, reached: (radii, n_nets)"""
    k, most = int(density.mean(1).argmax()), int(reached.mean(1).argmax())
    return {
        "density": density.mean(1).tolist(),
        "reached": reached.mean(1).tolist(),
        "densest": RADII[k],
        "inner": _over(density[0], density[k]),
        "outer": _over(density[-1], density[k]),
        "farthest": _over(reached[-1], reached[most]),
    }


def _over(a: Tensor, b: Tensor) -> list[float | None]:
    return [float(x / y) if y else None for x, y in zip(a, b, strict=True)]
