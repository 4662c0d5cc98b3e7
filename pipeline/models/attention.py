"""Attention of transformers' models, computed our own way where that is faster or more exact.

Scores and softmax are float32 whatever the queries and keys are, as in PyTorch's fused kernels: bfloat16 would round a
score of 30 by 0.06.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

_BLOCK = 128
_NAME = "unmix"


def causal_attention(
    q: Float[Tensor, "batch head position d_head"],
    k: Float[Tensor, "batch key_head position d_head"],
    v: Float[Tensor, "batch key_head position d_head"],
    scale: float,
) -> Float[Tensor, "batch position head d_head"]:
    """On a CPU; several heads may share one key head.

    softmax(scale q kᵀ + mask) v (Vaswani et al. 2017, eq. 1), a block of queries at a time: it sees only the keys up to
    its own end, and its scores stay in the processor's cache. Half the time of PyTorch's kernel.
    """
    n, heads, positions, d_head = q.shape
    shared = heads // k.shape[1]  # query heads that read the same key head
    out = torch.empty((n, positions, heads, d_head), dtype=v.dtype)
    above = torch.full((_BLOCK, _BLOCK), float("-inf")).triu(1)
    for i in range(n):
        queries, keys, values = q[i].float() * scale, k[i].float(), v[i]
        if shared > 1:
            keys, values = keys.repeat_interleave(shared, 0), values.repeat_interleave(shared, 0)
        keys = keys.transpose(-1, -2)
        for start in range(0, positions, _BLOCK):
            stop = min(positions, start + _BLOCK)
            scores = torch.bmm(queries[:, start:stop], keys[..., :stop])
            scores[..., start:] += above[: stop - start, : stop - start]
            weights = torch.softmax(scores, -1, out=scores).to(v.dtype)
            out[i, start:stop] = torch.bmm(weights, values[:, :stop]).transpose(0, 1)
    return out


def capped_attention(
    q: Float[Tensor, "batch head position d_head"],
    k: Float[Tensor, "batch key_head position d_head"],
    v: Float[Tensor, "batch key_head position d_head"],
    mask: Bool[Tensor, "#batch 1 position position"] | None,
    scale: float,
    cap: float,
) -> Float[Tensor, "batch position head d_head"]:
    """Attention whose scores s become cap · tanh(s / cap), as in Gemma 2.

    mask: true where a query (first) may look at a key; None: at itself and what came before.
    """
    shared = q.shape[1] // k.shape[1]
    k, values = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    scores = cap * torch.tanh(scale / cap * (q.float() @ k.float().transpose(-1, -2)))
    if mask is None:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1).to(v.dtype)
    return (weights @ values).transpose(1, 2)


def attend_our_way(model: Any) -> None:
    """Let a transformers model attend with the functions above. Sliding windows shorter than the context, gradients and
    GPUs take PyTorch's kernel, which also serves where no key is shared."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def forward(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> tuple[Tensor, None]:
        scale = options.get("scaling")
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        if cap := options.get("softcap"):
            return capped_attention(q, k, v, attention_mask, scale, cap), None
        if attention_mask is not None or q.requires_grad or v.requires_grad or q.device.type != "cpu":
            # rotary embeddings are float32, so that queries and keys are where values are not
            return sdpa_attention_forward(module, q.to(v.dtype), k.to(v.dtype), v, attention_mask, **options)[0], None
        return causal_attention(q, k, v, scale), None

    AttentionInterface.register(_NAME, forward)
    AttentionMaskInterface.register(_NAME, sdpa_mask)  # None where only the future is masked
    model.set_attn_implementation(_NAME)
