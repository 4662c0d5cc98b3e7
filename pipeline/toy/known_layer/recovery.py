"""How much of the known features a set of directions has, beside as many random ones."""

from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from pipeline.score.similarity import mcs, random_directions
from pipeline.train.rotations.orthogonal import polar, random_rotation
from stores.manifest import seed_of

FOUND = 0.9  # a feature is found when a direction has at least this cosine with it


def recovery(truth: Tensor, directions: Tensor, seed: int, signed: bool) -> dict[str, float]:
    """truth (n, d), directions (n_found, d): an axis of a rotation (signed) stands for both of its ends.

    mmcs, found: mean cosine of each feature with its nearest direction, and the share above FOUND; back_…: of each
    direction with its nearest feature. matched: share of the features that are found one to one. floor_…: the same of as
    many random directions; for axes of a rotation, of a random rotation.
    """
    n, d = directions.shape
    chance = random_rotation(d, seed) if signed and n == d else random_directions(n, d, seed)
    pairs = ((truth, directions), (directions, truth), (truth, chance), (chance, truth))
    there, back, floor, floor_back = (mcs(a, b, signed=signed).double() for a, b in pairs)
    return {
        "mmcs": round(float(there.mean()), 4),
        "found": float((there > FOUND).double().mean()),
        "back_mmcs": round(float(back.mean()), 4),
        "back_found": float((back > FOUND).double().mean()),
        "matched": one_to_one(truth, directions, signed),
        "floor_mmcs": round(float(floor.mean()), 4),
        "floor_found": float((floor > FOUND).double().mean()),
        "floor_back_mmcs": round(float(floor_back.mean()), 4),
    }


def one_to_one(truth: Tensor, directions: Tensor, signed: bool) -> float:
    """Largest share of the features that can be given directions of their own with cosines above FOUND."""
    cosine = _cosine(truth, directions, signed)
    rows, columns = linear_sum_assignment(cosine > FOUND, maximize=True)
    return float((cosine[rows, columns] > FOUND).sum() / len(truth))


def _cosine(a: Tensor, b: Tensor, signed: bool) -> np.ndarray:
    unit = (torch.nn.functional.normalize(x.double(), dim=-1) for x in (a, b))
    cosine = next(unit) @ next(unit).T
    return (cosine.abs() if signed else cosine).numpy()


def best_rotation(truth: Tensor, seed: int, n_starts: int = 60) -> Tensor:
    """R (d, d): the rotation whose axes agree best with features one to one, made with the truth in hand.

    In turns: match the axes with features (Hungarian), then the rotation nearest to the matched features (Procrustes).
    Neither step lowers Σ |cosine|. The best end of n_starts random starts: a local optimum, so a lower bound.
    """
    d = truth.shape[1]
    best, found = -1.0, torch.eye(d, dtype=torch.float64)
    for start in range(n_starts):
        R, before = random_rotation(d, seed_of("best", seed, start)), -1.0
        while True:
            cosine = R @ truth.T.double()
            axes, features = linear_sum_assignment(cosine.abs().numpy(), maximize=True)
            value = float(cosine[axes, features].abs().mean())
            if value <= before + 1e-9:
                break
            before = value
            targets = torch.zeros(d, d, dtype=torch.float64)
            targets[axes] = truth.double()[features] * cosine[axes, features].sign()[:, None]
            R = polar(targets)
        if before > best:
            best, found = before, R
    return found


def means(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """A list of one dict a seed → one list of all seeds for each key."""
    return {key: [row[key] for row in rows] for key in rows[0]}
