"""When it pays that features share dimensions: probabilities, closed forms, hand-made and trained layers.

Two features in one dimension, h = x_1 - x_2, x' = (ReLU(h), ReLU(-h)), x_i = 0 with probability 1 - p, else U[0, 1). It errs
only when both are active, in p² of all inputs, each feature by the smaller of the two: Σ_i E (x_i - x'_i)² = p²/3. A layer
that keeps one feature alone has p/3 - p²/4. Source: Elhage et al. 2022; the figures, the discussion of Baker 2022.
"""

from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from pipeline.toy.superposition.experiment import Task, Together, train
from pipeline.toy.superposition.geometry import classify, phase_losses
from stores.manifest import seed_of

P = 0.05  # of a feature, in the source's example
ALMOST = 0.5  # |cosine| below which two directions are almost orthogonal


def pair(x: Tensor) -> Tensor:
    """(…, 2) → what the hand-made layer of one dimension gives back."""
    h = x[..., 0] - x[..., 1]
    return torch.stack([h.relu(), (-h).relu()], -1)


def arithmetic(n_rows: int, seed: int = 0) -> dict[str, Any]:
    """Of n_rows draws at p = P: in how many both features are present, and on how many the hand-made layer errs."""
    generator = torch.Generator().manual_seed(seed_of("arithmetic", seed))
    x = Task(2, 1, torch.tensor([[P]])).sample(n_rows, generator)[0]
    apart = Task(2, 1, torch.tensor([[P]]), together="anticorrelated").sample(n_rows, generator)[0]
    return {
        "p": P,
        "n_rows": n_rows,
        "both": int((x > 0).all(1).sum()),
        "errs": int(((pair(x) - x).abs() > 1e-6).any(1).sum()),
        "errs_exclusive": int(((pair(apart) - apart).abs() > 1e-6).any(1).sum()),
    }


def sweep(ps: tuple[float, ...], n_seeds: int, n_steps: int, n_rows: int, seed: int = 0) -> dict[str, Any]:
    """Losses of two features in one dimension against p: closed forms, the hand-made pair on samples, trained layers.

    Of each p: pair, dedicated (closed forms), hand_made (mean, and its standard error), trained (a loss a seed), one, both
    (its loss on inputs with exactly one feature, and with both), antipodal (whether it ended as a pair). exclusive: the same
    of training at p = P where the features never come together.
    """
    generator = torch.Generator().manual_seed(seed_of("sharing", seed))
    hand_made = []
    for p in ps:
        x = Task(2, 1, torch.tensor([[p]])).sample(n_rows, generator)[0].double()
        error = (pair(x) - x).square().sum(1)
        hand_made.append([float(error.mean()), float(error.std() / n_rows**0.5)])
    theory = phase_losses(torch.tensor(ps, dtype=torch.float64), torch.ones(len(ps), dtype=torch.float64))
    found = _trained(torch.tensor(ps), n_seeds, n_steps, "independent")
    return {
        "p": list(ps),
        "dedicated": theory[0].tolist(),
        "pair": theory[2].tolist(),
        "hand_made": hand_made,
        **found,
        "exclusive": {"p": P, **_trained(torch.tensor([P]), n_seeds, n_steps, "anticorrelated")},
    }


def _trained(p: Tensor, n_seeds: int, n_steps: int, together: Together) -> dict[str, Any]:
    task = Task(2, 1, p.repeat_interleave(n_seeds)[:, None], together=together)
    found = train(task, n_steps, 256, seed_of("sharing", together), lr=2e-2)
    generator = torch.Generator().manual_seed(seed_of("sharing, fresh", together))
    one, both = Task(2, 1, torch.full_like(task.p, 0.5), together="anticorrelated"), Task(2, 1, torch.ones_like(task.p))
    fresh = {
        name: each.loss(found.W, found.b, each.sample(2048, generator)) for name, each in (("one", one), ("both", both))
    }
    return {
        **{
            name: np.round(loss.view(-1, n_seeds).double().numpy(), 8).tolist()
            for name, loss in (("trained", found.loss), *fresh.items())
        },
        "antipodal": (classify(found.W) == 2).view(-1, n_seeds).tolist(),
    }


def kept(n: int, ms: tuple[int, ...], ps: tuple[float, ...], n_seeds: int, n_steps: int) -> dict[str, Any]:
    """How many of n features a trained layer of m dimensions keeps, Σ min(1, |W_i|²): {m: one list of seeds for each p}.

    A projection on m dimensions keeps m, whatever its directions; a feature with a column of length 1 or more counts 1.
    """
    rows = {}
    for m in ms:
        task = Task(n, m, torch.tensor(ps).repeat_interleave(n_seeds)[:, None])
        W = train(task, n_steps, 256, seed_of("kept", m)).W
        rows[str(m)] = np.round(W.square().sum(1).clamp_max(1).sum(1).view(-1, n_seeds).double().numpy(), 4).tolist()
    return {"n": n, "p": list(ps), "kept": rows}


def almost_orthogonal(ds: tuple[int, ...], n_seeds: int, seed: int = 0) -> dict[str, Any]:
    """How many random unit vectors are drawn in d dimensions before two have |cosine| > ALMOST, one number a seed.

    theory: the median for independent pairs, n (n - 1) / 2 · P(|cosine| > ALMOST) = ln 2; a squared cosine is
    Beta(½, (d - 1)/2).
    """
    found, theory = [], []
    for d in ds:
        tail = float(stats.beta.sf(ALMOST**2, 0.5, (d - 1) / 2))
        expected = 0.5 + (0.25 + 2 * np.log(2) / tail) ** 0.5
        theory.append(float(expected))
        found.append([_drawn(d, int(4 * expected) + 8, seed_of("almost", seed, d, i)) for i in range(n_seeds)])
    return {"d": list(ds), "drawn": found, "theory": theory}


def _drawn(d: int, most: int, seed: int) -> int:
    """How many vectors in order have no two too near; more are drawn until there are two."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(most, d, generator=generator), dim=1)
    near = ((unit @ unit.T).abs() > ALMOST).tril(-1).any(1)
    return int(near.int().argmax()) if bool(near.any()) else _drawn(d, 4 * most, seed)
