"""Hook points in the modules of a transformers model."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.models.architectures import ARCHITECTURES
from pipeline.models.hook_points import EMBED, Sizes
from pipeline.models.hooks import Hooks
from pipeline.models.lens import Places, places


@dataclass(frozen=True)
class Listening:
    """Where a model has its hook points, by TransformerLens's names."""

    model: Any
    places: Places
    sizes: Sizes

    def listen(self, stack: ExitStack, hooks: Hooks, hook_point: str) -> None:
        """Register what happens at a hook point, until the stack is left."""
        layer, site = self.sizes.locate(hook_point)
        if site == EMBED:
            module, side = self.model.get_submodule(self.places.embed), "out"
        else:
            path, side = self.places.sites[site]
            module = self.model.get_submodule(self.places.layers)[layer].get_submodule(path)
        if site.endswith("hook_normalized"):
            handle = module.register_forward_hook(
                lambda norm, inputs, output: self._normalized(hooks, hook_point, norm, inputs[0], output)
            )
        elif side == "out":
            handle = module.register_forward_hook(lambda _, __, output: _changed(hooks, hook_point, output))
        elif site == "hook_resid_mid":
            handle = module.register_forward_pre_hook(lambda _, inputs: _in_place(hooks, hook_point, inputs[0]))
        else:
            handle = module.register_forward_pre_hook(lambda _, inputs: _changed(hooks, hook_point, inputs))
        stack.callback(handle.remove)

    def _normalized(self, hooks: Hooks, hook_point: str, norm: Any, x: Tensor, output: Tensor) -> Tensor:
        """What a norm gives. The hook point is before its gain and offset."""
        x = x.float()
        if isinstance(norm, nn.LayerNorm):
            normalized = F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
        else:
            normalized = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps(norm))
        edited = hooks(hook_point, normalized)
        if not hooks.edits(hook_point):
            return output
        gain = 1 + norm.weight if self.places.norm_offset else norm.weight
        offset = norm.bias if isinstance(norm, nn.LayerNorm) else 0
        return (edited * gain + offset).to(output.dtype)


def eps(norm: Any) -> float:
    return norm.eps if hasattr(norm, "eps") else norm.variance_epsilon


def _changed(hooks: Hooks, hook_point: str, found: Any) -> Any:
    """What goes in or comes out of a module, a tensor or a tuple that begins with one; with what the edit makes of it."""
    if isinstance(found, tuple):
        return (hooks(hook_point, found[0]), *found[1:])
    return hooks(hook_point, found)


def _in_place(hooks: Hooks, hook_point: str, x: Tensor) -> None:
    """The stream between attention and MLP is read twice, by the norm and by the sum at the layer's end: both read this
    very tensor, so an edit changes it in place."""
    edited = hooks(hook_point, x.clone() if hooks.edits(hook_point) else x)
    if hooks.edits(hook_point):
        x.copy_(edited)


def sizes_of(model: Any) -> Sizes:
    """Of a model that somebody has loaded: TransformerLens's or transformers' own. Raises UserError: another kind."""
    if hasattr(model, "hook_dict"):
        cfg = model.cfg
        gated, parallel = getattr(cfg, "gated_mlp", False), getattr(cfg, "parallel_attn_mlp", False)
        return Sizes(
            cfg.n_layers, cfg.n_ctx, cfg.d_vocab, cfg.d_model, cfg.d_mlp, cfg.n_heads, cfg.d_head, gated, parallel
        )
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(
            f"a {type(model).__name__} is no model that is known: TransformerLens's, or transformers' {known}"
        )
    values = json.loads(model.config.to_json_string())
    return ARCHITECTURES[kind].sizes(ARCHITECTURES[kind].settings(Path("config.json"), values))


def listen(stack: ExitStack, model: Any, hooks: Hooks, sizes: Sizes) -> None:
    """Register what happens at hook points of a model that somebody has loaded, until the stack is left."""
    if not hasattr(model, "hook_dict"):
        listening = Listening(model, _places(model), sizes)
        for hook_point in hooks.at:
            listening.listen(stack, hooks, hook_point)
        return

    def at(x: Tensor, hook: Any, hook_point: str) -> Tensor:
        found = hooks(hook_point, x.flatten(2)).reshape(x.shape)  # heads have a dimension of their own there
        # a TransformerBridge's hook_resid_mid is what the norm reads, and the sum at the layer's end reads the same tensor
        return x.copy_(found) if hook_point.endswith("hook_resid_mid") and hooks.edits(hook_point) else found

    stack.enter_context(model.hooks(fwd_hooks=[(h, partial(at, hook_point=h)) for h in hooks.at]))


def _places(model: Any) -> Places:
    """Raises UserError: a part of a model, such as AutoModel gives."""
    try:
        return places(model.config, type(model).__name__)
    except ValueError as error:
        raise UserError(
            f"a {type(model).__name__} cannot be listened to: take AutoModelForCausalLM's ({error})"
        ) from None


def tokens_of(model: Any, text: str, tokenizer: Any = None) -> Int[Tensor, "1 position"]:
    """A text's, after BOS. tokenizer: transformers' or a tokenizers.Tokenizer; None: the model's own, which TransformerLens's
    have. Raises UserError: it has none."""
    if tokenizer is None and getattr(model, "tokenizer", None) is not None:
        return model.to_tokens(text, prepend_bos=True)
    if tokenizer is None:
        raise UserError(f"a {type(model).__name__} has no tokenizer: give tokenizer=, or tokens (batch, position)")
    encoded = tokenizer.encode(text)
    ids = list(encoded if isinstance(encoded, list) else encoded.ids)
    known = (tokenizer, getattr(model, "config", None), getattr(model, "tokenizer", None))
    bos = next((found for one in known if (found := getattr(one, "bos_token_id", None)) is not None), None)
    if bos is not None and ids[:1] != [bos]:
        ids = [bos, *ids]
    return torch.tensor([ids], device=next(model.parameters()).device)
