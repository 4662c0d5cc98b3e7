"""The studies measure what they say: of known features, at a given L0."""

import math

import pytest
import torch

from pipeline.train.methods import METHODS
from scripts.at_l0 import at_l0, interpolated
from scripts.saelens_peer import train_peer
from scripts.study_defaults import at_target, changes
from scripts.synthetic import Hierarchy, heldout_codes, source_of, training_rows, truth_of
from scripts.trained import Trained, families, kept, recovered, sparsity_key, train_ours


def test_children_fire_only_with_their_parent() -> None:
    truth = Hierarchy(seed=0)
    active = truth.codes(0) > 0
    parents, children = active[:, :128], active[:, 128:].unflatten(1, (128, 3))
    assert not (children.any(2) & ~parents).any()
    share = children.sum() / (3 * parents.sum())
    assert abs(float(share) - 1 / 3) < 0.01
    assert abs(float(active.sum(1).double().mean()) - 6) < 0.3


def test_heldout_rows_are_not_training_rows() -> None:
    """Of rows with several features: an empty one gets a single feature of strength 1, and two such may be the same."""
    truth = truth_of("correlated", 0)
    codes = heldout_codes(truth, 64)
    held, rows = codes[(codes > 0).sum(1) > 1] @ truth.F, training_rows(truth, 4096)
    assert len(held) > 32
    assert torch.cdist(held, rows).min() > 1e-3


def every_third() -> torch.Tensor:
    """(4096, 8) strengths, every third of them not 0."""
    strengths = torch.rand(4096 * 8, generator=torch.Generator().manual_seed(1)) + 0.01
    return (strengths * (torch.arange(4096 * 8) % 3 == 0)).view(4096, 8)


def test_the_truth_itself_is_found_whole() -> None:
    """Orthogonal features that their own transposed read: cosine, F1 and reconstruction are exact, in any order."""
    F, order = torch.eye(8), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    strengths = every_third()
    own = 2 * F[order]
    found = recovered(Trained(lambda x: x @ own.T / 2, lambda z: z @ own / 2, own, False, 0.0), F, strengths)
    assert found["matched"] == found["mmcs"] == found["f1"] == pytest.approx(1)
    assert found["fvu"] == pytest.approx(0)
    assert found["l0"] == pytest.approx(float((strengths > 0).sum(1).float().mean()))


def test_a_feature_that_is_not_learned_counts_nothing() -> None:
    """Six of eight orthogonal features, and a latent that never fires: cosine and F1 are 6/8 of whole."""
    F = torch.eye(8)
    strengths = every_third()
    own = torch.cat([F[:6], torch.zeros(1, 8)])
    found = recovered(Trained(lambda x: x @ own.T, lambda z: z @ own, own, False, 0.0), F, strengths)
    assert found["f1"] == pytest.approx(0.75)
    assert found["matched"] == pytest.approx(0.75)
    assert found["dead"] == pytest.approx(1 / 7)


@pytest.mark.parametrize("start", [1e-3, 1.0, 300.0])
def test_the_coefficient_of_a_known_law_is_found(start: float) -> None:
    """L0 = 40 / (1 + c)²: 10 at c = 1."""
    best, tries = at_l0(lambda c: 40 / (1 + c) ** 2, lambda l0: l0, 10, start, tolerance=0.01, most=12)
    assert best == pytest.approx(1, rel=0.02)
    assert [c for c, _ in tries] == sorted(c for c, _ in tries)


def test_interpolation_is_a_line_in_the_logarithm() -> None:
    points = [(4.0, 0.3), (64.0, 0.1), (16.0, 0.2)]
    assert interpolated(points, 8) == pytest.approx(0.25)
    assert math.isnan(interpolated(points, 128))
    assert interpolated([(16.2, 0.2)], 16) == 0.2


def test_every_family_has_a_setting_of_its_sparsity() -> None:
    for method in families():
        assert sparsity_key(method) in ("k", "l0_target", "l1_coefficient", "l0_coefficient")


def test_one_setting_changes_at_a_time_and_never_to_the_default() -> None:
    for method in families():
        fields = METHODS[method].config.model_fields
        alone = changes(method, full=False)
        assert alone[0] == {}
        assert all(len(change) == 1 for change in alone[1:])
        assert all(fields[key].default != value for change in alone[1:] for key, value in change.items())
        every = changes(method, full=True)
        assert every[0] == {}
        assert all(change in every for change in alone)


def test_the_study_of_defaults_reads_reconstruction_at_the_target() -> None:
    """Two seeds, FVU 0.3 and 0.5 at L0 8, 0.1 and 0.3 at 32: at 16, half way in the logarithm, 0.2 and 0.4."""
    tries = [[{"l0": l0, "fvu": fvu + more, "dead": 0.0} for more in (0.0, 0.2)] for l0, fvu in ((8, 0.3), (32, 0.1))]
    found = at_target(tries, 16, may_miss=True)
    assert found["fvu"] == pytest.approx(0.3)
    assert found["spread"] == pytest.approx(0.2)
    assert math.isnan(at_target(tries[:1], 16, may_miss=True)["fvu"])


@pytest.mark.slow
@pytest.mark.interop
def test_both_libraries_learn_the_same_rows() -> None:
    """A few hundred steps of TopK at the true L0 leave either less than half of the variance."""
    truth = truth_of("correlated", 0)
    x = training_rows(truth, 400 * 256)
    source, heldout = source_of(x), heldout_codes(truth, 4096) @ truth.F
    own = train_ours("topk", {"d_sae": 128, "k": 5}, source, x.split(256))
    peer = train_peer(
        "topk", {"k": 5}, x.split(256), n_steps=400, batch_size=256, d_in=64, d_sae=128,
        scale=source.reads.common_scale, lr=3e-3, seed=0,
    )  # fmt: skip
    for trained in (own, peer):
        measures = kept(trained, heldout)
        assert measures["fvu"] < 0.5
        assert 4 < measures["l0"] <= 5
