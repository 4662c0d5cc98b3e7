"""Every family finds the features of synthetic superposition (Sharkey, Braun, Millidge 2022): correlated, G = 2 d."""

import pytest
import torch

from pipeline.score.similarity import mmcs
from pipeline.train.methods import METHODS
from tests.conftest import source_of

G, D, ACTIVE = 128, 64, 5


class Synthetic:
    """x = (active ∘ strength) F: unit features F, strengths U[0, 1), ACTIVE of them on average, active together as a
    random correlation says, the i-th less often by 0.99^i."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.truth = torch.nn.functional.normalize(torch.randn(G, D, generator=self.generator), dim=-1)
        A = torch.rand(G, G, generator=self.generator, dtype=torch.double)
        A = A.triu() + A.triu(1).T
        A = A - min(0.0, 1.001 * float(torch.linalg.eigvalsh(A)[0])) * torch.eye(G)
        self.factor = torch.linalg.cholesky(A).float()

    def batch(self, n: int) -> torch.Tensor:
        """(n, D)"""
        z = torch.randn(n, G, generator=self.generator) @ self.factor.T
        p = torch.special.ndtr(z) * 0.99 ** torch.arange(G)
        active = torch.rand(n, G, generator=self.generator) < p * (ACTIVE / G / p.mean())
        strength = torch.rand(n, G, generator=self.generator)
        empty = (~active).all(1)
        one = torch.randint(0, G, (n,), generator=self.generator)
        active[empty, one[empty]], strength[empty, one[empty]] = True, 1.0
        return (active * strength) @ self.truth


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recovered(method: str, **settings) -> float:
    """MMCS truth → dictionary after 4,000 steps of 256 rows, dead features left out."""
    data = Synthetic()
    source = source_of(data.batch(100_000))
    made = METHODS[method].learner(METHODS[method].config(**settings), source, "cpu")
    made.dtype = torch.float32
    for step in range(4000):
        made.step(data.batch(256), step, 4000)
    dictionary = made.to_dictionary({})
    live = (dictionary.encode(data.batch(20_000)) != 0).any(0)
    return mmcs(data.truth, dictionary.directions[live], signed=dictionary.signed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("topk", {"k": 5, "lr": 2e-3}),
        ("topk", {"k": 5, "lr": 2e-3, "whiten": "pca"}),
        ("relu_l1", {"l1_coefficient": 1.57, "lr": 1e-3, "whiten": "zca"}),
        ("abs_topk", {"k": 5, "lr": 2e-3}),
        ("batch_topk", {"k": 5, "lr": 2e-3}),
        ("matryoshka", {"k": 5, "lr": 2e-3, "n_prefixes": 2}),
        ("matching_pursuit", {"k": 5, "lr": 2e-3}),
        ("relu_l1", {"l1_coefficient": 1.57, "lr": 1e-3}),
        ("tied", {"l1_coefficient": 1.57, "lr": 3e-3, "penalty_warmup": 0.5}),
        ("gated", {"l1_coefficient": 2.5, "lr": 2e-3}),
        ("p_anneal", {"l1_coefficient": 1.5, "lr": 1e-3}),
        ("jumprelu", {"l0_coefficient": 1.0, "lr": 2e-3, "threshold": 0.24, "bandwidth": 0.24}),
    ],
)
def test_every_family_finds_the_truth(method: str, settings: dict) -> None:
    assert recovered(method, d_sae=256, **settings) >= 0.95


@pytest.mark.slow
def test_relu_l1_where_the_known_answers_are() -> None:
    """In the source's units α, means over d and d_sae instead of sums, on unscaled x: λ = α scale d / d_sae; from encoder
    rows of length 1, as there."""
    scale = source_of(Synthetic().batch(100_000)).reads.scale
    found = {
        (h, alpha): recovered("relu_l1", d_sae=h, l1_coefficient=alpha * scale * D / h, lr=1e-3, init_norm=1.0)
        for h, alpha in ((128, 0.3), (256, 1.0), (128, 3.0))
    }
    assert found[128, 0.3] >= 0.95
    assert found[256, 1.0] >= 0.97
    assert found[128, 3.0] <= 0.45
