import pytest
import torch

from pipeline.train.families.matching_pursuit import MatchingPursuit, MatchingPursuitConfig
from pipeline.train.families.tied import TiedConfig
from stores.pursuit import matching_pursuit
from stores.site import Site
from tests.pipeline.train.test_families import learner, planted


@pytest.mark.parametrize(("threshold", "duplicates_end"), [(0.0, False), (1.5, False), (0.0, True)])
def test_loss_code_and_gradients_are_those_of_the_pursuit_itself(threshold: float, duplicates_end: bool) -> None:
    """stores.pursuit, differentiated with its dense code."""
    x, _ = planted(512, 16, 32, 3)
    settings = {"residual_threshold": threshold, "stop_on_duplicate_support": duplicates_end}
    model = learner(MatchingPursuit, MatchingPursuitConfig(d_sae=24, k=6, **settings), x).model
    rows = model.scaled(x) - model.b_dec
    z = matching_pursuit(rows, model.W_dec, 6, threshold, duplicates_end)
    own = (rows - z @ model.W_dec).square().sum(-1).mean()
    expected = torch.autograd.grad(own, [model.W_dec, model.b_dec])
    loss = model.loss(*model.centred(model.scaled(x), model.scaled(x)), model.now(0, 1, False))
    found = torch.autograd.grad(loss.total, [model.W_dec, model.b_dec])
    assert loss.total.item() == pytest.approx(own.item(), rel=1e-5)
    torch.testing.assert_close(loss.code.z, z.detach(), atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    l0 = (z != 0).sum(-1).float()
    assert l0.mean() > 5 or threshold or duplicates_end
    if threshold or duplicates_end:
        assert l0.mean() < (matching_pursuit(rows, model.W_dec, 6) != 0).sum(-1).float().mean()
    assert loss.code.l0() == pytest.approx(l0.mean().item())


def test_the_graph_keeps_nothing_of_the_size_of_a_dense_code() -> None:
    x, _ = planted(64, 16, 32, 3)
    model = learner(MatchingPursuit, MatchingPursuitConfig(d_sae=1000, k=6), x).model
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), lambda t: t):
        model.loss(*model.centred(model.scaled(x), model.scaled(x)), model.now(0, 1, False))
    assert max(kept) <= 64 * 6 * 16 < 64 * 1000


def test_a_threshold_is_in_units_of_the_activations_in_the_dictionary() -> None:
    x, _ = planted(512, 16, 32, 3)
    made = learner(MatchingPursuit, MatchingPursuitConfig(d_sae=24, k=6, residual_threshold=1.5), 40 * x)
    z = made.to_dictionary({}).encode(40 * x)
    model = made.model
    loss = model.loss(*model.centred(model.scaled(40 * x), model.scaled(40 * x)), model.now(0, 1, False))
    torch.testing.assert_close(z * model.scale_in, loss.code.z, atol=1e-4, rtol=1e-4)
    assert (z != 0).sum(-1).float().mean() < 6


@pytest.mark.parametrize("config", [MatchingPursuitConfig(d_sae=8), TiedConfig(d_sae=8)])
def test_what_encodes_by_its_decoder_takes_one_hook_point(config: MatchingPursuitConfig | TiedConfig) -> None:
    a, b = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"
    config.check(Site.at(a), 16)
    for site in (Site((a,), (b,)), Site((a, b), (a, b))):
        with pytest.raises(ValueError, match="its decoder is its encoder: set hook_points"):
            config.check(site, 16)
