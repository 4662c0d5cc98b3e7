"""A loaded GPT-2: one forward that captures, edits and stops early.

Hook points carry TransformerLens's names. The forward runs the Hugging Face model's own modules, one after another.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.models.gpt2_modules import speed_up
from pipeline.models.gpt2_weights import read_weights
from pipeline.models.mlp import MLP

Precision = Literal["float32", "bfloat16"]
Edit = Callable[
    [Tensor, Mapping[str, Tensor]], Tensor
]  # (the activations, what was captured before them) → in their place


class LanguageModel:
    """A loaded model.

    weight_processing "folded": TransformerLens's layer-norm folding and centring of what writes to the residual
    stream; the logits stay the same up to a constant. precision "bfloat16": what attention and MLPs read and write is
    bfloat16; the residual stream, layer norms and attention's scores stay float32, as under autocast.
    """

    def __init__(
        self, files: ModelFiles, weight_processing: str = "none", device: str = "cpu", precision: Precision = "float32"
    ) -> None:
        self.files, self.device, self.precision = files, device, precision
        self.model = _loaded(files)
        if weight_processing == "folded":
            _fold(self.model)
        self.model.to(cast(Any, device))
        speed_up(self.model, precision)

    def writer(self, hook_point: str) -> Tensor:
        """(d, d_read): the matrix whose product with what a layer reads is written to the hook point, float32.

        Raises ValueError: the embedding writes there.
        """
        layer, site = self.files.locate(hook_point)
        if site == "hook_resid_pre":
            layer -= 1
        if layer < 0:
            raise ValueError(f"{hook_point} is written by the embedding, by no matrix")
        block = cast(Any, self.model.transformer).h[layer]
        if site in ("mlp.hook_pre", "mlp.hook_post"):
            module = block.mlp.c_fc
        else:
            module = block.attn.c_proj if site == "hook_resid_mid" else block.mlp.c_proj
        return module.weight.float()

    def mlp(self, layer: int) -> MLP:
        """The MLP of a layer and the layer norm before it, float32.

        Raises UserError: its activation function is not GPT-2's.
        """
        activation = self.files.config["activation_function"]
        if activation not in ("gelu_new", "gelu_pytorch_tanh"):
            raise UserError(f"{self.files.name}'s MLPs have the activation {activation!r}, expected gelu_new: GPT-2's")
        block = cast(Any, self.model.transformer).h[layer]
        read, write, norm = block.mlp.c_fc, block.mlp.c_proj, block.ln_2
        W_in, W_out = read.weight.T.float(), write.weight.T.float()
        return MLP(W_in, read.bias.float(), W_out, write.bias.float(), norm.weight, norm.bias, norm.eps)

    @torch.inference_mode()
    def forward(
        self,
        tokens: Tensor,
        capture: Collection[str] = (),
        edit: Mapping[str, Edit] | None = None,
        logits: bool = False,
        resume: tuple[int, Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """tokens: (batch, position) int64.

        Returns the activations at the hook points in capture, (batch, position, d) as computed (float32, or where
        precision says so bfloat16), and the logits (batch, position, d_vocab), or the last residual stream computed
        when logits is False: then the pass stops after the last hook point it needs. edit: what replaces the
        activations at a hook point, by sight of them and of what was captured before; what is captured there, and all that
        follows, is the edited value. resume: (layer, its resid_pre before any edit), to go on from there instead of the
        tokens.
        """
        edit = edit or {}
        last = self.files.n_layers - 1
        if not logits:
            last = max((self.files.locate(h)[0] for h in capture), default=-1)
        captured: dict[str, Tensor] = {}

        def hook(layer: int, site: str, x: Tensor) -> Tensor:
            name = f"blocks.{layer}.{site}"
            if name in edit:
                x = edit[name](x, captured)
            if name in capture:
                captured[name] = x
            return x

        transformer = cast(Any, self.model.transformer)
        first, residual = resume or (0, None)
        if residual is None:
            residual = transformer.wte(tokens) + transformer.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in range(first, last + 1):
            block = transformer.h[layer]
            residual = hook(layer, "hook_resid_pre", residual)
            if not logits and len(captured) == len(capture):
                break
            residual = hook(layer, "hook_resid_mid", residual + block.attn(block.ln_1(residual))[0])
            if not logits and len(captured) == len(capture):
                break
            pre = hook(layer, "mlp.hook_pre", block.mlp.c_fc(block.ln_2(residual)))
            post = hook(layer, "mlp.hook_post", block.mlp.act(pre))
            if not logits and len(captured) == len(capture):
                break
            out = hook(layer, "hook_mlp_out", block.mlp.c_proj(post))
            residual = hook(layer, "hook_resid_post", residual + out)
        if len(captured) < len(set(capture)):
            raise ValueError(f"hook points not reached: {', '.join(set(capture) - set(captured))}")
        return captured, self.model.lm_head(transformer.ln_f(residual)) if logits else residual


def _loaded(files: ModelFiles) -> Any:
    """A GPT2LMHeadModel of the settings and weights that the model's digest is of, and of nothing else."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.device("meta"):  # no weight is drawn
        options: dict[str, Any] = {
            **files.config,
            "bos_token_id": None,
            "eos_token_id": None,
            "attn_implementation": "sdpa",
        }
        model = cast(Any, GPT2LMHeadModel(GPT2Config(**options)))
    weights = read_weights(files.folder, files.config)
    head = weights.pop("lm_head.weight", weights["wte.weight"])
    model.transformer.load_state_dict(weights, assign=True)
    model.lm_head.load_state_dict({"weight": head}, assign=True)
    if files.config["tie_word_embeddings"]:
        model.lm_head.weight = model.transformer.wte.weight
    return model.eval().requires_grad_(False)


@torch.no_grad()
def _fold(model: Any) -> None:
    """What TransformerLens does by default, on Hugging Face's weights (Conv1D: (d_in, d_out)).

    Layer norms' gains and offsets move into the matrices that read from them; what writes to the residual stream is
    centred over d_model, which no layer norm sees. ln_f and the head, tied to the embedding before, keep the logits.
    """
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)
    transformer = model.transformer
    for embedding in (transformer.wte, transformer.wpe):
        embedding.weight -= embedding.weight.mean(-1, keepdim=True)
    for block in transformer.h:
        for norm, reader in ((block.ln_1, block.attn.c_attn), (block.ln_2, block.mlp.c_fc)):
            reader.bias += norm.bias @ reader.weight
            reader.weight *= norm.weight[:, None]
            reader.weight -= reader.weight.mean(0, keepdim=True)
            norm.weight.fill_(1.0)
            norm.bias.fill_(0.0)
        for writer in (block.attn.c_proj, block.mlp.c_proj):
            writer.weight -= writer.weight.mean(-1, keepdim=True)
            writer.bias -= writer.bias.mean()
