"""Clusters of activations, and how pure they are in a label beside clusters of the same sizes with the labels shuffled."""

from typing import Any, cast

import numpy as np
from pydantic import Field

from pipeline.config import Config

N_SHUFFLES = 50


class ClusterSettings(Config):
    """HDBSCAN's (Campello et al. 2013)."""

    min_cluster_size: int = Field(default=8, ge=2)
    min_samples: int = Field(default=2, ge=1)


def clustered(x: np.ndarray, min_cluster_size: int, min_samples: int) -> np.ndarray:
    """x (n, d) → (n), the cluster of each row, -1 for none."""
    from sklearn.cluster import HDBSCAN

    if len(x) < min_samples:  # scikit-learn refuses it
        return np.full(len(x), -1)
    found = HDBSCAN(min_cluster_size=min_cluster_size, min_samples=min_samples, copy=cast(Any, True)).fit(x)
    return found.labels_


def shares(labels: np.ndarray, y: np.ndarray) -> list[float]:
    """Of each cluster, the part of its rows that have its commonest y. labels, y: (n)."""
    return [float(_commonest(y[labels == label]) / (labels == label).sum()) for label in _names(labels)]


def excess(labels: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[list[float], list[float]]:
    """Of each cluster, the commonest y's share, and that less what it is on average when y is shuffled among all rows that
    are in a cluster. labels, y: (n)."""
    inside = labels >= 0
    own, among = shares(labels, y), y[inside]
    null = np.mean([shares(labels[inside], rng.permutation(among)) for _ in range(N_SHUFFLES)], axis=0)
    return own, (np.array(own) - null).tolist()


def distances(x: np.ndarray, labels: np.ndarray) -> tuple[float | None, float | None]:
    """Mean distance of clustered rows to their own cluster's mean, and to that of the nearest other cluster."""
    names = _names(labels)
    if len(names) < 2:
        return None, None
    centres = np.stack([x[labels == label].mean(0) for label in names])
    own = x[labels >= 0]
    distance = np.stack([np.linalg.norm(own - centre, axis=1) for centre in centres], axis=1)
    place = np.searchsorted(names, labels[labels >= 0])
    mine = distance[np.arange(len(own)), place].copy()
    distance[np.arange(len(own)), place] = np.inf
    return float(mine.mean()), float(distance.min(1).mean())


def _names(labels: np.ndarray) -> list[int]:
    return sorted(set(labels.tolist()) - {-1})


def _commonest(y: np.ndarray) -> int:
    return int(np.unique(y, return_counts=True)[1].max())
