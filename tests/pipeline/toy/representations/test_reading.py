"""Probes, units and tables, against scikit-learn and by hand."""

import numpy as np
import pytest
import torch

from pipeline.toy.representations.reading import Probe, auc, aucs, held_out_r2, looked_up


def data(n: int = 60, d: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, n, d, generator=generator, dtype=torch.double)
    return x, x[..., 0] + torch.randn(2, n, generator=generator) > 0


def test_auc_counts_pairs_and_ties_half() -> None:
    assert float(auc(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0]))) == 0.75
    assert float(auc(torch.tensor([0.0, 0.0]), torch.tensor([0.0]))) == 0.5


def test_auc_is_scikit_learns() -> None:
    from sklearn.metrics import roc_auc_score

    x, y = data()
    x = x.round(decimals=1)  # with ties
    expected = [[roc_auc_score(y[s], x[s, :, i]) for i in range(5)] for s in range(2)]
    assert np.allclose(aucs(x, y), expected)


def test_the_probe_is_scikit_learns_ridge() -> None:
    from sklearn.linear_model import Ridge

    x, y = data()
    found = Probe(x, y, ridge=0.1).score(x)
    for s in range(2):
        centred = x[s] - x[s].mean(0)
        alpha = 0.1 * float(centred.square().sum()) / 5
        expected = Ridge(alpha=alpha).fit(x[s], 2.0 * y[s] - 1).predict(x[s])
        assert np.allclose(found[s], expected)


def test_held_out_r2_is_that_of_fits_without_the_example() -> None:
    x, _ = data(20)
    y = x[0, :, 0] + 0.3 * x[0, :, 1].square()
    errors = []
    for i in range(20):
        others = [j for j in range(20) if j != i]
        design = torch.cat([x[0], torch.ones(20, 1)], 1)
        fitted = torch.linalg.lstsq(design[others], y[others, None]).solution
        errors.append(float(y[i] - design[i] @ fitted[:, 0]) ** 2)
    expected = 1 - sum(errors) / float((y - y.mean()).square().sum())
    assert float(held_out_r2(x[:1], y, ridge=0)) == pytest.approx(expected, abs=1e-9)


def test_a_table_answers_with_the_nearest() -> None:
    known = torch.tensor([[[0.0], [1.0]]])
    assert looked_up(known, torch.tensor([[7, 8]]), torch.tensor([[[0.4], [0.6], [9.0]]])).tolist() == [[7, 8, 8]]
