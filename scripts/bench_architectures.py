"""What bench_extract measures of the architectures that run on transformers' own modules: Pythia-70m's shape and a Llama's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.extract.capture import capture
from pipeline.models.files import DEMO, ModelFiles
from pipeline.models.load import load_model
from scripts.bench import medians

_CONTEXT = 512
_BATCHES = (1, 4, 16)
_LAYER = 3  # what is captured lies here, and nothing after it is computed
_HOOK_POINTS = (f"blocks.{_LAYER}.mlp.hook_post", f"blocks.{_LAYER}.hook_resid_post")
_SHARED = {
    "hidden_size": 512, "num_attention_heads": 8, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 0,
    "pad_token_id": None,
}  # fmt: skip
SHAPES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # config of transformers, and of HookedTransformer
    "pythia-70m": (
        "gpt_neox",
        {"num_hidden_layers": 6, "intermediate_size": 2048, "vocab_size": 50304, "rotary_pct": 0.25},
        {"n_layers": 6, "d_mlp": 2048, "d_vocab": 50304, "rotary_dim": 16, "act_fn": "gelu", "normalization_type": "LN",
         "parallel_attn_mlp": True},
    ),
    "llama": (
        "llama",
        {"num_hidden_layers": 8, "intermediate_size": 1408, "vocab_size": 32000, "num_key_value_heads": 4},
        {"n_layers": 8, "d_mlp": 1408, "d_vocab": 32000, "rotary_dim": 64, "act_fn": "silu", "normalization_type": "RMS",
         "n_key_value_heads": 4, "gated_mlp": True},
    ),
}  # fmt: skip


def random_model(folder: Path, shape: str) -> ModelFiles:
    """A folder with a model of the shape, random weights, the demo model's tokenizer."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    model_type, settings, _ = SHAPES[shape]
    torch.manual_seed(0)
    config: Any = CONFIG_MAPPING[model_type](**_SHARED, **settings)
    MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # any ids that it has cost the same
        (folder / name).write_text((DEMO / name).read_text())
    return ModelFiles.find(str(folder))


def figures(folder: Path, sequences: int, rounds: int) -> dict[str, float | str]:
    """Of each shape: tokens a second, and ours over the bare forward's and over the faster of TransformerLens's models."""
    tokens = np.random.default_rng(0).integers(0, 4096, (sequences, _CONTEXT), dtype=np.int32)
    found: dict[str, float | str] = {}
    for shape in SHAPES:
        files = random_model(folder / shape, shape)
        own = load_model(files, n_layers=_LAYER + 1)
        models = {"own": own, "own_bf16": load_model(files, precision="bfloat16", n_layers=_LAYER + 1)}
        contestants: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
            "bare": _bare(files),
            "HookedTransformer": _lens(_hooked_transformer(shape)),
            "TransformerBridge": _lens(_bridge(files)),
        }
        probe = torch.from_numpy(tokens[:2].astype(np.int64))
        ours = own.forward(probe, capture=_HOOK_POINTS)[0][_HOOK_POINTS[1]]
        theirs = contestants["bare"](probe)
        work: dict[str, Callable[[], Any]] = {}
        for size in _BATCHES:
            work |= {
                f"{name} {size}": lambda size=size, model=model: capture(
                    model, tokens, _HOOK_POINTS, tuple(range(1, _CONTEXT)), size, "float16"
                )
                for name, model in models.items()
            }
            work |= {f"{name} {size}": lambda f=f, size=size: _all(f, tokens, size) for name, f in contestants.items()}
        seconds = medians(work, rounds)
        rate = {
            name: tokens.size / min(seconds[f"{name} {size}"] for size in _BATCHES) for name in (*models, *contestants)
        }
        peer = max(("HookedTransformer", "TransformerBridge"), key=lambda name: rate[name])
        found |= {
            f"{shape} vs_bare_forward": rate["own"] / rate["bare"],
            f"{shape} vs_transformer_lens": rate["own"] / rate[peer],
            f"{shape} vs_transformer_lens_bf16": rate["own_bf16"] / rate[peer],
            f"{shape} peer": peer,
            f"{shape} largest_relative_difference": float((ours - theirs).abs().max() / theirs.square().mean().sqrt()),
            **{f"{shape} tokens_per_s {name}": r for name, r in rate.items()},
        }
    return found


@torch.inference_mode()
def _all(forward: Callable[[torch.Tensor], torch.Tensor], tokens: np.ndarray, size: int) -> None:
    for batch in torch.from_numpy(tokens.astype(np.int64)).split(size):
        forward(batch)


def _bare(files: ModelFiles) -> Callable[[torch.Tensor], torch.Tensor]:
    """transformers' own forward, with its default attention and no head, of the layers that are needed; the last norm,
    which comes after them, is taken away."""
    from transformers import AutoModel

    theirs: Any = AutoModel.from_pretrained(files.folder, num_hidden_layers=_LAYER + 1, dtype=torch.float32)
    name = "final_layer_norm" if files.model_type == "gpt_neox" else "norm"
    setattr(theirs, name, torch.nn.Identity())
    return lambda batch: theirs(batch, use_cache=False).last_hidden_state


def _hooked_transformer(shape: str) -> Any:
    """Random weights of its own: the time is that of the shape."""
    import transformer_lens as lens

    config = lens.HookedTransformerConfig(
        d_model=512, n_ctx=2048, d_head=64, n_heads=8, positional_embedding_type="rotary", **SHAPES[shape][2]
    )
    return lens.HookedTransformer(config)


def _bridge(files: ModelFiles) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(files.folder), device="cpu")


def _lens(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(batch: torch.Tensor) -> torch.Tensor:
        _, cache = model.run_with_cache(batch, names_filter=list(_HOOK_POINTS), stop_at_layer=_LAYER + 1)
        return cache[_HOOK_POINTS[1]]

    return forward
