"""The discussion's arithmetic of superposition, its two features in one number, and rotations where features outnumber axes."""

from statistics import NormalDist
from typing import Any

import torch

from pipeline.toy.mnist_rotation.settings import Settings
from pipeline.toy.mnist_rotation.several import eye, solved
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.orthogonal import random_rotation
from stores.manifest import seed_of

P = 0.05  # that a feature is present
SHIFT = 4.0  # M of the discussion, in standard deviations of a feature
D, N_ROWS = 12, 2000


def superposed(settings: Settings) -> dict[str, Any]:
    """together: in how many of n draws two independent features of probability P are both present; present: at least one.

    misread: of n draws of two exclusive features in one number, how many are read as the other one; theory: the closed
    form. found: by the number of features for each axis, the share of features to which an axis of the L4 rotation of the
    activations has a |cosine| of at least .9, lists over seeds.
    """
    n, generator = settings.n_pairs, torch.Generator().manual_seed(seed_of("superposed"))
    present = torch.rand(n, 2, generator=generator) < P
    first = torch.rand(n, generator=generator) < 0.5
    value = torch.randn(n, generator=generator)
    # the discussion's code: Z = X - M where Y is 0, Z = Y + M where X is 0; the sign of Z says which
    z = torch.where(first, value - SHIFT, value + SHIFT)
    return {
        "n": n,
        "p": P,
        "together": int(present.all(1).sum()),
        "present": int(present.any(1).sum()),
        "shift": SHIFT,
        "misread": int(((z < 0) != first).sum()),
        "theory": NormalDist().cdf(-SHIFT),
        "found": {f"{ratio:g}": [matched(settings, ratio, k) for k in range(settings.n_nets)] for ratio in (1, 2)},
    }


def matched(settings: Settings, ratio: int, seed: int) -> float:
    """Of ratio · D features in D dimensions, of probability P and normal strength, those that an axis of the rotation found
    points along. At ratio 1 they are orthogonal."""
    generator = torch.Generator().manual_seed(seed_of("features", ratio, seed))
    F = torch.randn(ratio * D, D, generator=generator, dtype=torch.float64)
    F = random_rotation(D, seed_of("features", seed)) if ratio == 1 else torch.nn.functional.normalize(F)
    strength = torch.randn(N_ROWS, len(F), generator=generator, dtype=torch.float64)
    x = (strength * (torch.rand(N_ROWS, len(F), generator=generator) < P)) @ F
    x = x[x.abs().sum(1) > 0]
    start = random_rotation(D, seed_of("features start", seed))
    config = settings.model_copy(update={"small_iterations": 30})
    J = Dense(x[:, :, None])
    R = solved(config, J, "out", eye(1), start, "l4")[1]
    return float(((F @ R.T).abs().amax(1) >= 0.9).double().mean())
