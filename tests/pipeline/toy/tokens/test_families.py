"""The train stage's families on the eight tokens."""

import numpy as np
import pytest
import torch

from pipeline.toy.tokens.eight import data
from pipeline.toy.tokens.families import relu_l1, source, topk, train
from pipeline.train.families.relu_l1 import ReluL1, ReluL1Config
from pipeline.train.families.topk import TopK, TopKConfig


def test_the_source_is_the_tokens() -> None:
    found, x = source(), data().double().numpy()
    assert found.reads.mean == pytest.approx(x.mean(0))
    assert found.reads.moments[0].total_variance == pytest.approx(x.var(0).sum(), rel=1e-6)
    assert np.array_equal(found.reads.rows(8), data().numpy())
    with pytest.raises(ValueError, match="no model"):
        found.weights()


def test_codes_and_reconstructions_belong_together() -> None:
    """Of both families, also untrained: x_hat is the code times unit rows, and a constant."""
    for family, config in ((ReluL1, ReluL1Config), (TopK, TopKConfig)):
        more = {"k": 2} if family is TopK else {}
        for n_steps in (0, 30):
            code = train(family, [config(d_sae=6, seed=s, lr=3e-3, **more) for s in range(3)], n_steps)
            assert torch.allclose(code.rows.norm(dim=-1), torch.ones(()), atol=1e-4)
            rest = code.x_hat - code.z @ code.rows
            assert torch.allclose(rest, rest[:, :1].expand_as(rest), atol=1e-5)
            if family is TopK:
                assert int((code.z > 0).sum(-1).max()) <= 2


def test_training_reconstructs_and_a_stronger_penalty_leaves_less() -> None:
    found = relu_l1(6, 20, 200, 3e-3)
    errors = [np.mean(found[name]["error"]) for name in found]
    assert errors[0] > 10 * errors[1]  # untrained, then rising coefficients
    assert errors[1] < errors[2] < errors[3]
    assert np.mean(found["ReLU-L1, λ = 3"]["l0"]) < np.mean(found["ReLU-L1, λ = 0.3"]["l0"])


def test_topk_has_k_latents_a_token_at_most() -> None:
    found = topk(4, 6, 20, 3e-3)
    assert list(found) == [f"TopK, k = {k}{u}" for k in (1, 2, 3) for u in (", untrained", "")]
    for name, one in found.items():
        assert max(one["l0"]) <= int(name.split("k = ")[1][0])
    assert list(topk(2, 1, 2, 3e-3)) == ["TopK, k = 1, untrained", "TopK, k = 1"]
