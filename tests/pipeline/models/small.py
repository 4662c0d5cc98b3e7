"""Small random models of every architecture, in Hugging Face layout, with the demo model's tokenizer."""

from pathlib import Path
from typing import Any

import torch

from pipeline.models.files import DEMO
from pipeline.models.protocol import LanguageModel

_SHARED = {
    "vocab_size": 4096, "max_position_embeddings": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip
_WINDOWS = {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_CAPPED = {"query_pre_attn_scalar": 7, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
_GROUPED = {"num_key_value_heads": 2}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {  # what makes each hard: windows shorter than the context, caps, groups
    "gpt_neox": ("gpt_neox", {"rotary_pct": 0.5}),
    "gpt_neox, sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "llama": ("llama", _GROUPED),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "mistral": ("mistral", _GROUPED | {"sliding_window": 7}),
    "qwen2": ("qwen2", _GROUPED | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1}),
    "qwen3": ("qwen3", _GROUPED | {"head_dim": 12}),
    "gemma2": ("gemma2", _GROUPED | _CAPPED | _WINDOWS | {"head_dim": 12}),
    "gemma3_text": ("gemma3_text", _GROUPED | _WINDOWS | {"head_dim": 12}),
}  # fmt: skip


def save_small(folder: Path, name: str, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A folder with a model of 3 layers, random weights far from their initial scale. name: of SMALL."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    model_type, settings = SMALL[name]
    config: Any = CONFIG_MAPPING[model_type](**{**_SHARED, **settings, **changes})
    torch.manual_seed(0)
    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # biases and gains that matter
    model.to(dtype).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_text((DEMO / file).read_text())
    return folder


def check_gradients(model: LanguageModel, tokens: torch.Tensor, hook_point: str, step: float) -> None:
    """Those of the logits' squares along a random direction at the hook point are finite differences'."""
    x = model.forward(tokens, capture=[hook_point])[0][hook_point].clone()
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    def loss(value: torch.Tensor, gradients: bool) -> torch.Tensor:
        edit = {hook_point: lambda *_: value}
        return model.forward(tokens, edit=edit, logits=True, gradients=gradients)[1].double().square().mean()

    leaf = x.clone().requires_grad_()
    loss(leaf, True).backward()
    assert leaf.grad is not None
    slope = (loss(x + step * direction, False) - loss(x - step * direction, False)) / (2 * step)
    torch.testing.assert_close((leaf.grad * direction).double().sum(), slope.clone(), rtol=0.02, atol=1e-4)
