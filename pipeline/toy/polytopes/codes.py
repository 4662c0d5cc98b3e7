"""The affine map of each spline code, and a plane through three digits cut into its polytopes."""

from typing import Any

import torch

from pipeline.toy.polytopes.nets import NetSettings, ReluNets, accuracies, code_of, trained, unseen

CORNERS = (0, 1, 7)  # digits that the plane goes through
MARGIN = 0.3  # of the plane around them, in their distances
_ROWS = 50  # whose maps are held at once


@torch.no_grad()
def codes(settings: NetSettings) -> dict[str, Any]:
    """Of each net the accuracy, the largest |difference| of a logit from what the affine map of the digit's code gives,
    and how many codes the unseen digits have; of the first net a plane."""
    nets = trained(settings)
    x, y = unseen(settings)
    pre = nets.pre_activations(x)
    code = code_of(pre)
    error = torch.zeros(len(code))
    for own, s, out in zip(x.split(_ROWS), code.split(_ROWS, dim=1), pre[-1].split(_ROWS, dim=1), strict=True):
        A, c = nets.affine(s)
        error = error.maximum((torch.einsum("nboi,bi->nbo", A, own) + c - out).abs().amax((1, 2)))
    return {
        "widths": list(settings.widths),
        "n_units": code.shape[2],
        "n_rows": len(x),
        "accuracy": accuracies(nets, x, y),
        "error": error.tolist(),
        "largest_logit": float(pre[-1].abs().max()),
        "n_codes": [len(torch.unique(own, dim=0)) for own in code],
        "plane": _plane(settings, nets),
    }


def _plane(settings: NetSettings, nets: ReluNets) -> dict[str, Any]:
    """Polytopes, numbered, and answers of the first net: (side²) each."""
    x, y = unseen(settings)
    a, b, c = (x[y == digit][0] for digit in CORNERS)
    side = settings.slice_side
    ticks = torch.linspace(-MARGIN, 1 + MARGIN, side)
    u, v = torch.meshgrid(ticks, ticks, indexing="xy")
    one = ReluNets([W[:1] for W in nets.weights], [b[:1] for b in nets.biases])
    pre = one.pre_activations(a + u.flatten()[:, None] * (b - a) + v.flatten()[:, None] * (c - a))
    _, polytope = torch.unique(code_of(pre)[0], dim=0, return_inverse=True)
    return {
        "side": side,
        "polytopes": polytope.tolist(),
        "n_polytopes": int(polytope.max()) + 1,
        "answers": pre[-1][0].argmax(1).tolist(),
    }
