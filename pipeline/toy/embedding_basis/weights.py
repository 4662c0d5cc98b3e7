"""The matrices that read and write the residual stream, and how sparse they are in a basis of it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.models.gpt2_weights import read_weights

MATRICES = ("W_Q", "W_K", "W_V", "W_O", "W_in", "W_out")


def model_weights(files: ModelFiles) -> dict[str, Tensor]:
    """Every weight of a GPT-2, float64, by Hugging Face's names. Raises UserError: the model is another architecture's."""
    if files.model_type != "gpt2":
        raise UserError(f"embedding_basis.model: {files.name} is a {files.model_type} model, expected gpt2")
    return {name: weight.double() for name, weight in read_weights(files.folder, files.config).items()}


def stream_matrices(weights: Mapping[str, Tensor], n_layers: int) -> list[dict[str, Tensor]]:
    """Of each layer, MATRICES as (d_model, k): a row is a coordinate of the residual stream.

    Readers have the layer norm's gain folded in, and their mean over d_model taken out, for the layer norm takes that of its
    input out. Writers have theirs taken out because no layer norm sees it. This is TransformerLens's processing.
    """
    found = []
    for layer in range(n_layers):
        names = {part: f"h.{layer}.{part}.weight" for part in ("ln_1", "attn.c_attn", "attn.c_proj")}
        names |= {part: f"h.{layer}.{part}.weight" for part in ("ln_2", "mlp.c_fc", "mlp.c_proj")}
        own = {part: weights[name] for part, name in names.items()}
        W_Q, W_K, W_V = (own["ln_1"][:, None] * own["attn.c_attn"]).chunk(3, dim=1)
        W_in = own["ln_2"][:, None] * own["mlp.c_fc"]
        both = (W_Q, W_K, W_V, own["attn.c_proj"].T, W_in, own["mlp.c_proj"].T)
        found.append({name: W - W.mean(0) for name, W in zip(MATRICES, both, strict=True)})
    return found


def embedding_axes(W_E: Tensor, centred: bool) -> Tensor:
    """(d_model, d_model): right singular vectors of the embedding (d_vocab, d_model) as rows, the largest first.

    centred: of the embedding less its mean over tokens.
    """
    return torch.linalg.svd(W_E - W_E.mean(0) if centred else W_E, full_matrices=False)[2]


def sparsity(W: Tensor) -> dict[str, float]:
    """Of W (d, k); higher is sparser, and a factor on W changes nothing. For independent normal entries: 3, 1.25, …

    kurtosis: E w⁴ / (E w²)². l2_l1: √E w² / E |w|. hoyer: (√N - |w|₁ / |w|₂) / (√N - 1) of N entries (Hoyer 2004). top1: share
    of Σ w² in the largest 1% of the entries. within: the kurtosis of each row, mean over rows: rows of unequal length raise
    the other four, and not this one.
    """
    squares, n = W.square(), W.numel()
    mean_square, root = squares.mean(), n**0.5
    ratio = float(mean_square.sqrt() / W.abs().mean())
    rows = squares.square().mean(1) / squares.mean(1).square().clamp_min(1e-300)
    return {
        "kurtosis": float(squares.square().mean() / mean_square.square()),
        "l2_l1": ratio,
        "hoyer": (root - root / ratio) / (root - 1),
        "top1": float(squares.flatten().topk(max(1, round(0.01 * n))).values.sum() / squares.sum()),
        "within": float(rows.mean()),
    }


MEASURES = ("kurtosis", "l2_l1", "hoyer", "top1", "within")
