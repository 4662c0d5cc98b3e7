"""A loaded GPT-2 with a fast forward pass of its own: it runs the Hugging Face model's modules one after another."""

from collections.abc import Collection, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.models.attention import attend_our_way
from pipeline.models.files import ModelFiles
from pipeline.models.gpt2_weights import read_weights
from pipeline.models.hook_points import EMBED, HEADS
from pipeline.models.hooks import Edit, Hooks
from pipeline.models.mlp import MLP, check_activation
from pipeline.models.modules import Linear
from pipeline.models.protocol import Precision


class GPT2:
    """A LanguageModel.

    weight_processing "folded": TransformerLens's layer-norm folding and centring of what writes to the residual
    stream; the logits stay the same up to a constant.
    """

    def __init__(
        self, files: ModelFiles, weight_processing: str = "none", device: str = "cpu", precision: Precision = "float32"
    ) -> None:
        self.files, self.device, self.folded = files, device, weight_processing == "folded"
        self.precision: Precision = precision
        self.model = _loaded(files)
        if self.folded:
            _fold(self.model)
        self.model.to(cast(Any, device))
        _speed_up(self.model, precision)

    @property
    def n_layers(self) -> int:
        """See LanguageModel."""
        return len(cast(Any, self.model.transformer).h)

    def keep(self, n_layers: int) -> None:
        """See LanguageModel."""
        del cast(Any, self.model.transformer).h[n_layers:]

    def writer(self, hook_point: str) -> Float[Tensor, "d d_read"]:
        """See LanguageModel."""
        layer, site = self.files.locate(hook_point)
        if site == "hook_resid_pre":
            layer -= 1
        if layer < 0:
            raise ValueError(f"{hook_point} is written by the embedding, by no matrix")
        if site.endswith("hook_normalized") or site.startswith(HEADS):
            raise ValueError(f"{hook_point} is written by no single matrix")
        block = cast(Any, self.model.transformer).h[layer]
        if site in ("mlp.hook_pre", "mlp.hook_post"):
            module = block.mlp.c_fc
        else:
            module = block.attn_write if site in ("hook_attn_out", "hook_resid_mid") else block.mlp.c_proj
        return module.weight.float()

    def mlp(self, layer: int) -> MLP:
        """See LanguageModel. Raises UserError: its activation function has no closed form here."""
        activation = self.files.config["activation_function"]
        check_activation(self.files.name, activation)
        block = cast(Any, self.model.transformer).h[layer]
        read, write, norm = block.mlp.c_fc, block.mlp.c_proj, block.ln_2
        W_in, W_out = read.weight.T.float(), write.weight.T.float()
        weights = W_in, read.bias.float(), W_out, write.bias.float(), norm.weight, norm.bias
        return MLP(*weights, norm.eps, activation=activation)

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
        with hooks.running(gradients, self.n_layers):
            residual = self._residual(hooks, tokens, resume)
            if logits:
                found = self.model.lm_head(cast(Any, self.model.transformer).ln_f(residual))
        return hooks.captured, found

    def _residual(self, hooks: Hooks, tokens: Tensor, resume: tuple[int, Tensor] | None) -> Tensor:
        """(batch, position, d_model) after the last layer that is needed."""
        transformer = cast(Any, self.model.transformer)
        first, residual = resume or (0, None)
        if residual is not None and residual.is_inference() and torch.is_grad_enabled():
            residual = residual.clone()  # PyTorch keeps no inference tensor for a backward pass
        if residual is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
            residual = hooks(EMBED, transformer.wte(tokens)) + transformer.wpe(positions)
        for layer in range(first, hooks.last_layer + 1):
            block, at = transformer.h[layer], f"blocks.{layer}."
            residual = hooks(f"{at}hook_resid_pre", residual)
            normed = _normed(hooks, f"{at}ln1.hook_normalized", block.ln_1, residual)
            z = self._heads(hooks, f"{at}{HEADS}", block.attn, normed)
            attn_out = hooks(f"{at}hook_attn_out", block.attn_write(z))
            residual = hooks(f"{at}hook_resid_mid", residual + attn_out)
            normed = _normed(hooks, f"{at}ln2.hook_normalized", block.ln_2, residual)
            pre = hooks(f"{at}mlp.hook_pre", block.mlp.c_fc(normed))
            post = hooks(f"{at}mlp.hook_post", block.mlp.act(pre))
            mlp_out = hooks(f"{at}hook_mlp_out", block.mlp.c_proj(post))
            residual = hooks(f"{at}hook_resid_post", residual + mlp_out)
        return residual

    def _heads(self, hooks: Hooks, hook_point: str, attention: Any, x: Tensor) -> Tensor:
        """(batch, position, n_heads · d_head). When weights are folded the hook point is before the values' bias.

        TransformerLens then moves that bias past the heads: the weights on all positions sum to 1, so it is added as is.
        """
        z = attention(x)[0]
        if not (self.folded and hooks.wants(hook_point)):
            return hooks(hook_point, z)
        b_V = attention.c_attn.bias[2 * self.files.sizes.d_model :]
        edited = hooks(hook_point, z - b_V)
        return edited + b_V if hooks.edits(hook_point) else z


def _normed(hooks: Hooks, hook_point: str, norm: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    """What a layer norm gives. The hook point is before its gain and offset."""
    if hooks.wants(hook_point):
        normalized = F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
        edited = hooks(hook_point, normalized)
        if hook_point in hooks.edit:
            return edited * norm.weight + norm.bias
    return norm(x)


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


def _speed_up(model: Any, precision: Precision) -> None:
    """Exchange the matrix products, the activation and, on a CPU, the attention of a GPT2LMHeadModel in place."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    for block in model.transformer.h:
        block.attn_write = block.attn.c_proj  # apart from attention, which so returns what its heads give, hook_z
        block.attn.c_proj = torch.nn.Identity()
        for owner, name in ((block.attn, "c_attn"), (block, "attn_write"), (block.mlp, "c_fc"), (block.mlp, "c_proj")):
            conv = getattr(owner, name)
            setattr(owner, name, Linear(conv.weight.t(), conv.bias, dtype))
        if model.config.activation_function == "gelu_new":
            block.mlp.act = torch.nn.GELU("tanh")  # the same function in one pass over memory instead of eight
    model.lm_head = Linear(model.lm_head.weight, None, torch.float32)
    if model.device.type == "cpu":
        attend_our_way(model)
