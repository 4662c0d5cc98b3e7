"""Direct logit attribution beside the matrices of the model, and beside what a small addition really does."""

import numpy as np
import pytest
import torch

from pipeline.features.logits import direct_logits, mean_divisor, residual_directions
from pipeline.models.protocol import LanguageModel
from stores.activations import ActivationStore

LAST = "blocks.1.hook_resid_post"


@pytest.fixture
def directions(model: LanguageModel) -> torch.Tensor:
    return torch.randn(300, model.files.d(LAST), generator=torch.Generator().manual_seed(0))


def test_it_is_the_unembedding_of_the_direction_through_the_norms_gain(
    model: LanguageModel, directions: torch.Tensor
) -> None:
    transformer, head = model.model.transformer, model.model.lm_head.weight  # type: ignore[attr-defined]
    centred = directions - directions.mean(-1, keepdim=True)
    expected = centred * transformer.ln_f.weight / 2.5 @ head.T
    expected = expected - expected.mean(-1, keepdim=True)
    found = direct_logits(model, directions, final_norm=2.5, n=4)
    best = expected.topk(4, dim=-1)
    np.testing.assert_allclose(found.promoted_by, best.values.detach(), rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(found.suppressed_by, -(-expected).topk(4, dim=-1).values.detach(), rtol=2e-3, atol=1e-4)
    at = expected.gather(-1, torch.from_numpy(found.promoted)).detach()
    np.testing.assert_allclose(found.promoted_by, at, rtol=2e-3, atol=1e-4)


def test_it_is_what_a_small_addition_does_where_the_norms_scale_stays(
    model: LanguageModel, directions: torch.Tensor, tokens: np.ndarray
) -> None:
    """The direction is made orthogonal to the centred residual, so that the norm's divisor stays as it is."""
    batch = torch.from_numpy(tokens[:1, :5].astype(np.int64))
    captured, before = model.forward(batch, capture={LAST}, logits=True)
    residual = captured[LAST][0, -1]
    centred = residual - residual.mean()
    v = directions[0] - directions[0].mean()
    v = v - (v @ centred) / (centred @ centred) * centred
    epsilon = 1e-2
    edit = {LAST: lambda x, _: x + epsilon * v}
    after = model.forward(batch, edit=edit, logits=True)[1]
    raised = (after - before)[0, -1] / epsilon
    raised = (raised - raised.mean()).detach()
    own = float(centred.square().mean().sqrt())
    found = direct_logits(model, v[None], final_norm=own, n=3)
    np.testing.assert_allclose(found.promoted_by[0], raised.topk(3).values, rtol=2e-2)


def test_the_mean_divisor_is_of_the_residuals_that_are_normed(model: LanguageModel, tokens: np.ndarray) -> None:
    batch = torch.from_numpy(tokens.astype(np.int64))
    residual = model.forward(batch, capture={LAST})[0][LAST][:, 1:]
    expected = residual.var(-1, correction=0).sqrt().mean()
    assert mean_divisor(model, tokens, tuple(range(1, tokens.shape[1]))) == pytest.approx(float(expected), rel=1e-3)


def test_neurons_write_by_their_rows_of_the_output_matrix(model: LanguageModel, mlps: ActivationStore) -> None:
    layer = model.mlp(0)
    W_dec = torch.eye(layer.d_mlp)
    found = residual_directions(model, "blocks.0.mlp.hook_post", W_dec)
    assert found is not None
    torch.testing.assert_close(found, layer.W_out)
    assert residual_directions(model, "blocks.0.attn.hook_q", W_dec) is None
