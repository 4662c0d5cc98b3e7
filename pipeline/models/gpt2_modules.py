"""The parts of a transformers GPT-2 that this project computes its own way, because it is faster; the numbers are the same
to rounding. Measured on two AMD cores at GPT-2 small's shape, 512 positions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.products import linear

_BLOCK = 128


def speed_up(model: Any, precision: str) -> None:
    """Exchange the matrix products, the activation and, on a CPU, the attention of a GPT2LMHeadModel in place."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for block in model.transformer.h:
        block.attn_write = block.attn.c_proj  # apart from attention, which so returns what its heads give, hook_z
        block.attn.c_proj = nn.Identity()
        for owner, name in ((block.attn, "c_attn"), (block, "attn_write"), (block.mlp, "c_fc"), (block.mlp, "c_proj")):
            setattr(owner, name, Linear(getattr(owner, name), dtype))
        if model.config.activation_function == "gelu_new":
            block.mlp.act = nn.GELU("tanh")  # the same function in one pass over memory instead of eight
    if model.device.type == "cpu":
        _attend_in_blocks(model)


class Linear(nn.Module):
    """x W + b in the dtype given, from a transformers Conv1D. Its weight is rounded once, not at every forward pass."""

    def __init__(self, conv: Any, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(conv.weight.detach().t().contiguous().to(dtype), requires_grad=False)
        self.bias = nn.Parameter(conv.bias.detach().to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        product = F.linear if x.requires_grad else linear
        return product(x.to(self.weight.dtype), self.weight, self.bias)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(batch, position, head, d_head) from three (batch, head, position, d_head), on a CPU.

    softmax(scale q kᵀ + mask) v (Vaswani et al. 2017, eq. 1), a block of queries at a time: it sees only the keys up to
    its own end, and its scores stay in the processor's cache. Half the time of PyTorch's kernel. Scores and softmax are
    float32 whatever q and k are, as in PyTorch's fused kernels: bfloat16 would round a score of 30 by 0.06.
    """
    n, heads, positions, d_head = q.shape
    out = torch.empty((n, positions, heads, d_head), dtype=v.dtype)
    above = torch.full((_BLOCK, _BLOCK), float("-inf")).triu(1)
    for i in range(n):
        queries, keys = q[i].float() * scale, k[i].float().transpose(-1, -2)
        for start in range(0, positions, _BLOCK):
            stop = min(positions, start + _BLOCK)
            scores = torch.bmm(queries[:, start:stop], keys[..., :stop])
            scores[..., start:] += above[: stop - start, : stop - start]
            weights = torch.softmax(scores, -1, out=scores).to(v.dtype)
            out[i, start:stop] = torch.bmm(weights, v[i, :, :stop]).transpose(0, 1)
    return out


def _attend_in_blocks(model: Any) -> None:
    """Let a transformers model attend with causal_attention where only the future is masked and no gradient is needed."""
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    def forward(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        if attention_mask is not None or q.requires_grad:
            return sdpa_attention_forward(module, q, k, v, attention_mask, **options)
        scale = options.get("scaling")
        return causal_attention(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale), None

    AttentionInterface.register("causal_blocks", forward)
    model.set_attn_implementation("causal_blocks")
