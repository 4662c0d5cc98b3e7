"""A loaded model of any architecture but GPT-2: transformers' own modules, with hooks where TransformerLens has them."""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.models.attention import attend_our_way
from pipeline.models.files import ModelFiles
from pipeline.models.hook_points import HEADS
from pipeline.models.hooks import Edit, Hooks
from pipeline.models.hugging_face_weights import load
from pipeline.models.lens import places
from pipeline.models.listening import Listening, eps
from pipeline.models.mlp import MLP, check_activation
from pipeline.models.modules import Linear
from pipeline.models.protocol import Precision

_MATRICES = {  # site → the matrix that writes there, where no norm comes after it
    "hook_attn_out": "attn.o",
    "hook_resid_mid": "attn.o",
    "hook_mlp_out": "mlp.out",
    "hook_resid_post": "mlp.out",
    "mlp.hook_post": "mlp.in",
}


class HuggingFace:
    """A LanguageModel. n_layers: only the first so many are loaded."""

    def __init__(
        self, files: ModelFiles, device: str = "cpu", precision: Precision = "float32", n_layers: int | None = None
    ) -> None:
        self.files, self.device = files, device
        self.precision: Precision = precision
        self.model = load(files.folder, files.config, device, n_layers)
        self.places = places(self.model.config, type(self.model).__name__)
        self.layers = self.model.get_submodule(self.places.layers)
        self.listening = Listening(self.model, self.places, files.sizes)
        _speed_up(self.model, self.layers, precision)

    @property
    def n_layers(self) -> int:
        """See LanguageModel."""
        return len(self.layers)

    def keep(self, n_layers: int) -> None:
        """See LanguageModel."""
        del self.layers[n_layers:]

    def writer(self, hook_point: str) -> Float[Tensor, "d d_read"]:
        """See LanguageModel."""
        layer, site = self.files.locate(hook_point)
        if site == "hook_resid_pre":
            layer, site = layer - 1, "hook_resid_post"
        if layer < 0:
            raise ValueError(f"{hook_point} is written by the embedding, by no matrix")
        part = _MATRICES.get(site, "mlp.gate" if self.files.sizes.gated else "mlp.in")
        if site.endswith("hook_normalized") or site.startswith(HEADS):
            raise ValueError(f"{hook_point} is written by no single matrix")
        if f"ln{1 if part == 'attn.o' else 2}_post" in self.places.parts and not site.startswith("mlp."):
            raise ValueError(f"{hook_point} is written through a norm, by no matrix")
        if site == "mlp.hook_pre_linear":
            part = "mlp.in"
        return self._part(layer, part).weight.float()

    def mlp(self, layer: int) -> MLP:
        """See LanguageModel. Raises UserError: a norm follows it, or its activation function has no closed form here."""
        name = self.files.name
        if "ln2_post" in self.places.parts:
            raise UserError(
                f"{name}'s MLPs are followed by a norm, expected one that writes to the residual stream itself"
            )
        activation = self.model.config.hidden_act
        check_activation(name, activation)
        (W_in, b_in), (W_out, b_out) = self._product(layer, "mlp.in"), self._product(layer, "mlp.out")
        norm = self._part(layer, "ln2")
        gain = norm.weight.float()
        plain = isinstance(norm, nn.LayerNorm)
        return MLP(
            W_in, b_in, W_out, b_out, gain, norm.bias.float() if plain else torch.zeros_like(gain), eps(norm),
            self._product(layer, "mlp.gate") if self.files.sizes.gated else None, activation, "layer" if plain else "rms",
        )  # fmt: skip

    def _product(self, layer: int, name: str) -> tuple[Tensor, Tensor]:
        """(d_in, d_out) and (d_out), float32."""
        module = self._part(layer, name)
        W = module.weight.T.float()
        return W, W.new_zeros(W.shape[1]) if module.bias is None else module.bias.float()

    def forward(
        self,
        tokens: Int[Tensor, "batch position"],
        capture: Collection[str] = (),
        edit: Mapping[str, Edit] | None = None,
        logits: bool = False,
        resume: tuple[int, Float[Tensor, "batch position d_model"]] | None = None,
        gradients: bool = False,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """See LanguageModel."""
        hooks = Hooks(self.files.sizes, capture, edit, to_end=logits)
        found = torch.empty(0, device=tokens.device)
        if not (logits or capture):
            return {}, found
        with ExitStack() as stack, hooks.running(gradients, self.n_layers):
            first = 0
            if resume is not None:
                first = resume[0]
                self._start_at(stack, *resume, gradients)
            for hook_point in hooks.at:
                if resume is None or self.files.locate(hook_point)[0] >= first:
                    self.listening.listen(stack, hooks, hook_point)
            found = self.model(input_ids=tokens, use_cache=False).logits
        return hooks.captured, found

    def _part(self, layer: int, name: str) -> Any:
        return self.layers[layer].get_submodule(self.places.parts[name])

    def _start_at(self, stack: ExitStack, layer: int, residual: Tensor, gradients: bool) -> None:
        """Let the layers before one do nothing, and that one read the residual stream that is given."""
        if residual.is_inference() and gradients:
            residual = residual.clone()  # PyTorch keeps no inference tensor for a backward pass
        for skipped in self.layers[:layer]:
            skipped.forward = lambda x, *_, **__: x
            stack.callback(vars(skipped).pop, "forward")
        stack.callback(self.layers[layer].register_forward_pre_hook(lambda _, inputs: (residual, *inputs[1:])).remove)


def _speed_up(model: Any, layers: Any, precision: Precision) -> None:
    """Matrix products within layers in the precision's dtype, all else float32, and attention our way."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for layer in layers:
        for owner in list(layer.modules()):
            for name, module in list(owner.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(owner, name, Linear(module.weight, module.bias, dtype))
    products = {id(p) for m in layers.modules() if isinstance(m, Linear) for p in m.parameters()}
    for parameter in model.parameters():
        if id(parameter) not in products:
            parameter.data = parameter.data.float()
    for module in model.modules():  # buffers, such as Gemma's factor on its embedding
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point():
                exact = getattr(module, f"scalar_{name}", None)  # what bfloat16 would round
                buffer = buffer.float() if exact is None else torch.full_like(buffer, exact, dtype=torch.float32)
                module.register_buffer(name, buffer, persistent=False)
    attend_our_way(model)
