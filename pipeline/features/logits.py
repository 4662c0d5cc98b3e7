"""Which tokens a feature makes likelier: direct logit attribution."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from pipeline.models.protocol import LanguageModel

_LONG = 1e3  # directions are made this long, beside which a norm's eps is nothing
_BLOCK = 256


@dataclass(frozen=True)
class Logits:
    """Of each feature the tokens whose logits rise most, and fall most, with what they do for an activation of 1."""

    promoted: Int64[np.ndarray, "d_sae n"]
    promoted_by: Float32[np.ndarray, "d_sae n"]
    suppressed: Int64[np.ndarray, "d_sae n"]
    suppressed_by: Float32[np.ndarray, "d_sae n"]


def residual_directions(
    model: LanguageModel, hook_point: str, W_dec: Float[Tensor, "d_sae d"]
) -> Float[Tensor, "d_sae d_model"] | None:
    """What each feature adds to the residual stream by this hook point; None: the hook point writes none of it directly."""
    name = hook_point.split(".", 2)[-1]
    if name in ("hook_embed", "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out"):
        return W_dec
    if name == "mlp.hook_post":
        return W_dec @ model.writer(hook_point.replace("mlp.hook_post", "hook_mlp_out")).T.to(W_dec.device)
    return None


@torch.no_grad()
def direct_logits(
    model: LanguageModel, directions: Float[Tensor, "d_sae d_model"], final_norm: float, n: int = 10
) -> Logits:
    """What a direction, added to the last residual stream, does to the logits, the scale of the last norm held as it is.

    directions: for an activation of 1. final_norm: the norm's mean divisor on real text. The norm and the unembedding are the
    model's own: its logits of the direction, made long, less those of nothing, are the attribution times the divisor
    over the direction's own. Logits are centred over the vocabulary. Source: nostalgebraist 2020, "Interpreting GPT: the
    logit lens"; Elhage et al. 2021, "A mathematical framework for transformer circuits".
    """
    last = model.n_layers - 1
    hook_point = f"blocks.{last}.hook_resid_post"
    d_model = directions.shape[1]

    def logits(residual: Tensor) -> Tensor:
        """Of (n, d_model) last residuals: the layer before reads zeros and is thrown away."""
        tokens = torch.zeros(1, len(residual), dtype=torch.long, device=model.device)
        edit = {hook_point: lambda x, _: residual[None].to(x.dtype)}
        return model.forward(tokens, edit=edit, logits=True, resume=(last, torch.zeros_like(residual)[None]))[1][
            0
        ].float()

    nothing = logits(torch.zeros(1, d_model, device=model.device))
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for own in directions.to(model.device).float().split(min(_BLOCK, model.files.n_positions)):
        lengths = own.norm(dim=-1, keepdim=True).clamp_min(1e-30)
        raised = logits(own / lengths * _LONG) - nothing
        raised = raised - raised.mean(-1, keepdim=True)
        divisor = divisor_of(model, own)
        raised = raised * (divisor / final_norm)[:, None]
        up, down = raised.topk(n, dim=-1), (-raised).topk(n, dim=-1)
        found.append((up.indices, up.values, down.indices, -down.values))
    return Logits(*(torch.cat(part).cpu().numpy() for part in zip(*found, strict=True)))


def divisor_of(model: LanguageModel, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
    """What the last norm divides x by; it is of the kind of the norms before MLPs.

    Raises UserError: the model's MLPs are of a kind that is not known here.
    """
    return model.mlp(model.n_layers - 1).normalise(x)[1].squeeze(-1)


@torch.no_grad()
def mean_divisor(model: LanguageModel, tokens: np.ndarray, positions: tuple[int, ...]) -> float:
    """The last norm's mean divisor over some texts (n_sequences, context) at these positions."""
    hook_point = f"blocks.{model.n_layers - 1}.hook_resid_post"
    batch = torch.from_numpy(tokens.astype(np.int64)).to(model.device)
    residual = model.forward(batch, capture={hook_point})[0][hook_point][:, list(positions)].float()
    return float(divisor_of(model, residual).mean())
