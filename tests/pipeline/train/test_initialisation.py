import numpy as np
import pytest
import torch

from pipeline.train.families.topk import TopKConfig
from pipeline.train.initialisation import centre, directions
from stores.site import Site
from tests.conftest import source_of

INITS = ["random", "orthogonal", "data", "pca", "writer", "privileged"]


class Writer:
    """A layer that writes along three directions."""

    matrix = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))

    def writer(self, hook_point: str) -> torch.Tensor:
        return self.matrix


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(500, 12, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.1, 12) + 7


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("d_sae", [5, 40])
def test_unit_rows_that_the_seed_alone_decides(rows: torch.Tensor, init: str, d_sae: int) -> None:
    source = source_of(rows, weights=Writer())
    found = directions(init, 0.3, d_sae, source, 0)
    assert found.shape == (d_sae, 12)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(d_sae))
    assert torch.equal(found, directions(init, 0.3, d_sae, source, 0))
    if init != "pca" or d_sae > 24:  # the components themselves are the store's alone
        assert not torch.equal(found, directions(init, 0.3, d_sae, source, 1))


def test_orthogonal_rows_are_bases(rows: torch.Tensor) -> None:
    found = directions("orthogonal", 0, 30, source_of(rows), 0)
    for block in (found[:12], found[12:24], found[24:]):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), atol=1e-5, rtol=0)
    assert (found[:12] @ found[12:24].T).abs().max() < 0.99


def test_data_rows_are_training_rows(rows: torch.Tensor) -> None:
    found = directions("data", 0, 40, source_of(rows), 0)
    centred = torch.nn.functional.normalize(rows - rows.mean(0), dim=-1)
    assert (found @ centred.T).amax(1).min() > 0.9999


def test_pca_rows_are_components_both_ways_then_like_the_data(rows: torch.Tensor) -> None:
    found = directions("pca", 0, 4000, source_of(rows), 0)
    components = torch.linalg.eigh(torch.cov(rows.T)).eigenvectors.T.flip(0)
    assert (found[:24:2] * components).sum(-1).abs().min() > 0.999
    torch.testing.assert_close(found[1:24:2], -found[:24:2])
    spread = (found[24:] @ components.T).square().mean(0)
    assert (spread.diff() < 0.01).all()  # falling, as the data's variances


def test_writer_rows_lie_in_what_the_layer_writes(rows: torch.Tensor) -> None:
    found = directions("writer", 0, 12, source_of(rows, weights=Writer()), 0)
    u = torch.linalg.svd(Writer.matrix).U
    inside = (found[:6] @ u[:, :3]).norm(dim=-1)  # the first of them: singular vectors of values that are not 0
    torch.testing.assert_close(inside, torch.ones(6))
    noised = directions("writer", 0.5, 12, source_of(rows, weights=Writer()), 0)
    assert 0.7 < (noised * found).sum(-1).mean() < 0.98


def test_privileged_rows_are_coordinates(rows: torch.Tensor) -> None:
    found = directions("privileged", 0, 24, source_of(rows), 0)
    assert torch.equal(found.abs().amax(1), torch.ones(24))
    assert torch.equal(found.sum(0), torch.zeros(12))


def test_the_geometric_median_has_the_least_summed_distance(rows: torch.Tensor) -> None:
    rows[:50] += 400  # outliers move the mean, and hardly the median
    x = rows.double().numpy()
    median = centre("geometric_median", source_of(rows).reads)

    def distance(p: np.ndarray) -> float:
        return float(np.linalg.norm(x - p, axis=1).sum())

    assert all(distance(median) <= distance(median + 1e-2 * step) for step in [*np.eye(12), *-np.eye(12)])
    assert np.linalg.norm(median - 7) < 3 < np.linalg.norm(centre("mean", source_of(rows).reads) - 7)


def test_what_cannot_be_begun_so_is_refused() -> None:
    config = TopKConfig(d_sae=11, k=2, init="writer")
    with pytest.raises(ValueError, match="the embedding writes there"):
        config.check(Site.at("blocks.0.hook_resid_pre"), 12)
    config.check(Site.at("blocks.1.hook_resid_pre"), 12)
