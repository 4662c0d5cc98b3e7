import pytest
import torch
from transformers.pytorch_utils import Conv1D

from pipeline.models.attention import capped_attention, causal_attention
from pipeline.models.modules import Linear


@pytest.mark.parametrize("positions", [1, 7, 128, 129, 300])
def test_it_is_pytorchs_attention(positions: int) -> None:
    q, k, v = 3 * torch.randn(3, 2, 4, positions, 16, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), is_causal=True, scale=0.3
    )
    found = causal_attention(q, k, v, 0.3)
    torch.testing.assert_close(found.double(), exact.transpose(1, 2), atol=5e-5, rtol=1e-5)


def test_bfloat16_keeps_its_scores_in_float32() -> None:
    q, k, v = torch.randn(3, 1, 2, 200, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    q = 8 * q  # scores up to about 100, of which bfloat16 would keep the units only
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double(), is_causal=True)
    found = causal_attention(q, k, v, 0.25)
    assert found.dtype == torch.bfloat16
    assert (found.double() - exact.transpose(1, 2)).abs().max() < 0.02


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_is_the_conv1d_it_is_made_from(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    conv, x = Conv1D(24, 16), torch.randn(2, 5, 16)
    torch.nn.init.normal_(conv.bias)
    found = Linear(conv.weight.t(), conv.bias, dtype)(x)
    rounded = x.to(dtype).double() @ conv.weight.to(dtype).double() + conv.bias.to(dtype).double()
    assert found.dtype == dtype
    torch.testing.assert_close(found, rounded.to(dtype), atol=1e-6, rtol=2**-8 if dtype == torch.bfloat16 else 1e-5)


def test_query_heads_may_share_key_heads() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 140, 16, generator=generator) for heads in (6, 2, 2))
    exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(causal_attention(q, k, v, 0.3), exact.transpose(1, 2), atol=5e-5, rtol=1e-5)


def test_a_large_cap_leaves_attention_as_it_is_and_a_small_one_averages() -> None:
    q, k, v = torch.randn(3, 1, 2, 20, 16, generator=torch.Generator().manual_seed(0))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(capped_attention(q, k, v, None, 0.3, 1e4), plain, atol=1e-5, rtol=1e-5)
    mean = v.cumsum(2) / torch.arange(1, 21)[:, None]
    torch.testing.assert_close(capped_attention(q, k, v, None, 0.3, 1e-5), mean.transpose(1, 2), atol=1e-4, rtol=1e-4)
