"""The claims of the synthetic toy follow from numbers."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.toy.synthetic import experiment
from pipeline.toy.synthetic.beginnings import OWN
from pipeline.toy.synthetic.claims import CLAIMS
from pipeline.toy.synthetic.data import DataConfig
from pipeline.toy.synthetic.gathered import seeds
from pipeline.toy.synthetic.real_activations import describe
from tests.pipeline.toy.mutations import check_claims, measured

SMALL = {  # the cells of the known answers, in as few steps as there can be
    "table_d_sae": (64, 128, 256), "table_alpha": (0.3, 1.0, 3.0), "table_steps": 20, "table_rows": 256, "table_seeds": 4,
    "changed_steps": 5, "begin_steps": 20, "original_steps": 20, "family_steps": 5, "ratios": (2, 4),
    "encoder_steps": 20, "families": ("topk", "relu_l1", "tied"),
}  # fmt: skip
MMCS = [[0.7, 0.5, 0.3], [0.99, 0.9, 0.4], [0.6, 0.99, 0.8]]


def agreeing(numbers: dict[str, Any]) -> dict[str, Any]:
    """The numbers, made such that every source would be right. What no claim reads is left out."""
    for one in seeds(numbers, "table"):
        del one["features"]
        one["pca"]["mmcs"] = 0.38
        for i, j in itertools.product(range(3), range(3)):
            m, n_looks = MMCS[i][j], len(one["steps"])
            one["cells"][i][j] = {
                "mmcs": m, "larger": m, "correlation": m, "error": 1 - m, "error_scaled": 1 - m, "found": 0.25,
                "absent": 0.25, "dead": (5, 27, 129)[j], "floor": 0.3, "l0": 1.0, "fvu": 0.5,
                "curve": [0.0] * (n_looks - 1) + [1.0] if i == 2 else [0.0] + [1.0] * (n_looks - 1),
                "jumps": {"share": [0.9] * 8, "half": [0.5] * 8},
            }  # fmt: skip
    for one in seeds(numbers, "changed"):
        for change in one["changes"].values():
            change["cells"] = [{"mmcs": 0.9} for _ in change["cells"]]
    for n, part in enumerate(sorted(seeds(numbers, "natural"), key=lambda p: p["ratio"])):
        for kind in ("trained", "random"):
            del part[kind]["matrix"]
            part[kind]["nearest"] = [0.99] * len(part["kept"])
            for f, rows in enumerate(part[kind]["families"].values()):
                for found in rows:
                    m = 0.9 - 0.3 * n - 0.02 * f
                    found.update(mmcs=m, floor=0.5, correlation=m, error=1 - m, error_scaled=1 - m)
    for kind in ("random", "axes"):
        for one in seeds(numbers, f"begin_{kind}"):
            n, slow = len(one["steps"]), {f"random{OWN}": 1.0, f"orthogonal{OWN}": 2.0, "orthogonal": 2.0}
            for name, found in one.items():
                if name != "steps":
                    found["curve"] = [min(1.0, slow.get(name, 4.0) * i / (n - 1)) for i in range(n)]
    for name, row in numbers["real"]["rows"].items():
        toy = name == "toy"
        row.update(values=[], norms=[], spectrum=[], kurtosis=3.0 if toy else 30.0, kurtosis_random=3.0)
        row.update(participation=1.0 if toy else 0.1, norm_spread=0.1 if toy else 0.5)
    return {name: part for name, part in numbers.items() if name not in ("grid", "original")}


def grid(settings: Any, folder: Path) -> dict[str, Any]:
    """As the ordinary stages' numbers look: no claim reads them."""
    cell = {"mmcs": 0.9, "mmcs_back": 0.9, "floor": 0.3, "dead": 0, "l0": 5.0, "fvu": 0.1}
    floors = {name: cell for name in ("pca", "ica", "random-s0")}
    shape = {"d_sae": [64], "alpha": [0.3], "cells": [[cell]], "n_rows": 1, "n_steps": 1}
    return {**shape, "floors": floors, "truth": {"l0": 5.0, "fvu": 0.1}, "data": DataConfig().model_dump()}


def real(settings: Any, folder: Path) -> dict[str, Any]:
    rows = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
    return {"model": "none", "rows": {"toy": describe(rows), "mlp.hook_post": describe(rows.relu())}}


@pytest.fixture
def numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The page of them is written on the way. Two parts, which other tests run, are replaced: they take long."""
    monkeypatch.setattr(experiment, "grid", grid)
    monkeypatch.setattr(experiment, "real", real)
    return measured("synthetic", tmp_path, **SMALL)


@pytest.mark.slow
def test_claims_follow_from_the_numbers(numbers: dict[str, Any]) -> None:
    check_claims(CLAIMS, agreeing(numbers), n_mutations=60)
