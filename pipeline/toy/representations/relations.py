"""Is a relation between words one offset of their vectors? Held out pair by pair, in every layer of a language model.

    offset of a pair (a, b) = x_b - x_a;  of a relation = the mean over its other pairs

x: the residual stream of a token that stands alone after BOS, less the mean over all tokens of the vocabulary. Before layer 0
it is the embedding and one position. Source: Mikolov, Yih, Zweig 2013, "Linguistic regularities in continuous space word
representations".
"""

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from pipeline.toy.representations.words import PLURAL, in_vocabulary, with_space
from pipeline.toy.representations.words import relations as word_relations
from stores.manifest import seed_of

LEAST = 6  # pairs that a relation must have


def token_pairs(files: ModelFiles) -> dict[str, list[tuple[str, str]]]:
    """Of each relation the pairs that the model has as single tokens; relations of fewer than LEAST are left out.

    Raises UserError: too few plurals."""
    vocabulary = files.tokenizer.get_vocab()
    found = {name: in_vocabulary(pairs, vocabulary) for name, pairs in word_relations().items()}
    found["without and with a space"] = with_space(vocabulary)
    if len(found[PLURAL]) < LEAST:
        raise UserError(
            f"representations.model: {files.name} has {len(found[PLURAL])} plural pairs of tokens, {LEAST} are needed"
        )
    return {name: pairs for name, pairs in found.items() if len(pairs) >= LEAST}


def alone(model: LanguageModel, hook_points: list[str]) -> list[Tensor]:
    """Each token of the vocabulary at position 1, after BOS: (d_vocab, d) float64 of each hook point."""
    n = model.files.vocab_size
    tokens = torch.stack([torch.full((n,), model.files.bos), torch.arange(n)], dim=1)
    parts = [model.forward(batch, hook_points)[0] for batch in tokens.split(1024)]
    return [torch.cat([part[h][:, 1] for part in parts]).double() for h in hook_points]


def residual_points(files: ModelFiles) -> list[str]:
    """Before the first layer, and after each."""
    return ["blocks.0.hook_resid_pre"] + [f"blocks.{layer}.hook_resid_post" for layer in range(files.n_layers)]


def held_out_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each pair's offset with the mean offset of the other pairs: a, b (n, d) → (n,)."""
    offset = b - a
    return nn.functional.cosine_similarity(offset, offset.sum(0) - offset, dim=1)


def permutation_p(a: Tensor, b: Tensor, n: int, seed: int) -> float:
    """How often words of the second kind dealt out at random to those of the first have as large a mean cosine.

    The mean offset stays the same: what is tested is that b belongs to its a, not that the two kinds differ. (1 + k)/(1 + n).
    """
    rng = np.random.default_rng(seed)
    found = held_out_cosine(a, b).mean()
    dealt = [held_out_cosine(a, b[torch.from_numpy(rng.permutation(len(b)))]).mean() for _ in range(n)]
    return (1 + sum(bool(x >= found) for x in dealt)) / (1 + n)


def ranks(x: Tensor, a: Tensor, b: Tensor, offset: Tensor) -> list[int]:
    """Where b stands among all tokens by cosine with a + offset; a left out; 1 is first. x (d_vocab, d), a, b (n,) ids."""
    unit = nn.functional.normalize(x, dim=-1)
    similarity = nn.functional.normalize(x[a] + offset, dim=-1) @ unit.T
    similarity[torch.arange(len(a)), a] = -2
    return ((similarity > similarity.gather(1, b[:, None])).sum(1) + 1).tolist()


def measured(x: Tensor, a: Tensor, b: Tensor, words: Tensor, n_permutations: int, seed: int) -> dict[str, Any]:
    """A relation in one layer. x (d_vocab, d) centred; a, b (n,) ids; words: ids to draw random pairs from.

    above_random: of each pair, held out, the share of random pairs of words whose offset has a smaller cosine.
    """
    cosine = held_out_cosine(x[a], x[b])
    rng = np.random.default_rng(seed)
    first, second = (words[torch.from_numpy(rng.integers(len(words), size=2000))] for _ in range(2))
    offset = x[b] - x[a]
    others = (x[second] - x[first])[first != second]
    random = nn.functional.cosine_similarity(others, offset.mean(0)[None])
    held_out = (offset.sum(0) - offset) / (len(a) - 1)
    return {
        "cosine": cosine.tolist(),
        "cosine_random": float(random.mean()),
        "above_random": (cosine[:, None] > random).double().mean(1).tolist(),
        "p": permutation_p(x[a], x[b], n_permutations, seed),
        "rank": ranks(x, a, b, held_out),
        "rank_without": ranks(x, a, b, torch.zeros_like(held_out)),
    }


def relations(model: str, n_permutations: int) -> dict[str, Any]:
    """Every relation in every layer."""
    files = ModelFiles.find(model)
    vocabulary = files.tokenizer.get_vocab()
    pairs = token_pairs(files)
    words = torch.tensor([i for token, i in sorted(vocabulary.items()) if re.fullmatch("Ġ?[a-z]{3,}", token)])
    points = residual_points(files)
    layers = [x - x.mean(0) for x in alone(load_model(files), points)]
    found = {}
    for name, chosen in pairs.items():
        a, b = (torch.tensor([vocabulary[pair[side]] for pair in chosen]) for side in (0, 1))
        found[name] = [measured(x, a, b, words, n_permutations, seed_of("relations", name)) for x in layers]
    return {
        "model": model,
        "points": points,
        "pairs": {
            name: [[token.replace("Ġ", " ") for token in pair] for pair in chosen] for name, chosen in pairs.items()
        },
        "found": found,
    }
