"""The source's autoencoder, its gradient written out."""

import pytest
import torch

from pipeline.toy.synthetic.source_autoencoder import Weights, begin, train

ALPHAS = (0.1, 1.0, 3.0)


def rows(n: int = 2048, d: int = 8) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)) * 0.3


def by_autograd(x: torch.Tensor, start: Weights, n_steps: int) -> Weights:
    """The same rows in the same order: all that there are, in each step."""
    weights = Weights(*(w.clone().requires_grad_() for w in start))
    optimiser = torch.optim.Adam(list(weights), lr=1e-3)
    for _ in range(n_steps):
        c = torch.relu(x @ weights.W_enc + weights.b_enc)
        loss = (x - c @ weights.W_dec).square().mean((1, 2)) + torch.tensor(ALPHAS) * c.mean((1, 2))
        optimiser.zero_grad()
        loss.sum().backward()
        optimiser.step()
        with torch.no_grad():
            weights.W_dec.div_(weights.W_dec.norm(dim=-1, keepdim=True))
    return weights


def test_the_gradient_is_autograds() -> None:
    x = rows(256)
    start = begin(3, 8, 20, 0)
    own, other = train(x, start, ALPHAS, 40, in_blocks=True), by_autograd(x, start, 40)
    for a, b in zip(own, other, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert not torch.allclose(own.W_enc, start.W_enc, atol=1e-3)


def test_each_learns_what_it_learns_alone() -> None:
    start = begin(3, 8, 20, 0)
    together = train(rows(), start, ALPHAS, 20)
    for i, alpha in enumerate(ALPHAS):
        alone = train(rows(), begin(1, 8, 20, 0), (alpha,), 20)
        assert torch.allclose(alone.W_dec[0], together.W_dec[i], atol=1e-5)


def test_the_penalty_shrinks_a_code_by_alpha_d_over_two_d_sae() -> None:
    """One direction, one feature: (v - c)² / d + α c / d_sae is least at c = v - α d / (2 d_sae)."""
    x = torch.tensor([[2.0, 0.0]]).expand(256, -1)
    W = torch.tensor([[[1.0, 0.0]]])
    start = Weights(W.mT.clone(), torch.zeros(1, 1, 1), W)
    found = train(x, start, (0.5,), 1500).dictionaries()[0]
    assert float(found.encode(x[:1])) == pytest.approx(2 - 0.5 * 2 / 2, abs=0.01)


def test_directions_begin_orthogonal_and_stay_unit() -> None:
    start = begin(1, 8, 8, 3)
    assert torch.allclose(start.W_dec[0] @ start.W_dec[0].T, torch.eye(8), atol=1e-5)
    seen = []
    train(rows(), start, (0.1,), 10, looks=(0, 10), look=lambda step, w: seen.append((step, w.W_dec.clone())))
    assert [step for step, _ in seen] == [0, 10]
    assert torch.allclose(seen[1][1].norm(dim=-1), torch.ones(1, 8), atol=1e-5)
    assert torch.equal(seen[0][1], start.W_dec)
