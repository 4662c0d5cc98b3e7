import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.toy.auroc import aurocs


def test_it_is_scikit_learns_with_ties() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 4)).round(1), rng.random((200, 3)) < [0.1, 0.5, 0.9]
    expected = [[roc_auc_score(of, column) for column in x.T] for of in y.T]
    assert aurocs(x, y) == pytest.approx(np.array(expected), abs=1e-12)


def test_of_one_kind_alone_nothing_can_be_said() -> None:
    assert np.isnan(aurocs(np.ones((3, 1)), np.ones((3, 1), bool))).all()
