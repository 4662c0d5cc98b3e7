"""One number that exposes most of what can be wrong with a model and its text: the first batch's cross-entropy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.models.protocol import LanguageModel


@dataclass(frozen=True)
class FirstBatch:
    """Mean cross-entropies of next tokens, in nats a token: the model's, and that of a unigram on the same tokens."""

    ce: float
    unigram_ce: float

    def __str__(self) -> str:
        return f"first batch: cross-entropy {self.ce:.2f} nats a token, unigram {self.unigram_ce:.2f}"

    @property
    def warning(self) -> str | None:
        """One line, where the model predicts no better than the frequencies of tokens do; NaN is no better."""
        if self.ce < self.unigram_ce:
            return None
        return (
            "warning: the model predicts this text no better than the frequencies of its tokens do: is it untrained, or "
            "the tokenizer, the text or config.json another one's?"
        )


@torch.inference_mode()
def first_batch_loss(model: LanguageModel, tokens: np.ndarray, positions: Sequence[int]) -> FirstBatch | None:
    """tokens: (n_sequences, context); counted are the predictions at `positions`, None where none of them predicts.

    The unigram has add-one counts over the vocabulary, (n_token + 1) / (n + n_vocabulary), of these very targets. So it
    is never worse than a uniform guess, which an untrained model is no better than, and a small batch does not flatter it
    as its plain entropy would, which is at most log n: a trained model would be below log 155 on few batches of 155.
    """
    places = torch.tensor([p for p in positions if p < tokens.shape[1] - 1])
    if not len(places):
        return None
    total, targets = 0.0, tokens[:, places.numpy() + 1].astype(np.int64)
    for row, target in zip(tokens, targets, strict=True):  # one at a time: logits are context times vocabulary
        sequence = torch.from_numpy(row.astype(np.int64))[None].to(model.device)
        logits = model.forward(sequence, logits=True)[1][0, places.to(model.device)].float()
        total += float(F.cross_entropy(logits, torch.from_numpy(target).to(model.device), reduction="sum"))
    counts = np.bincount(targets.ravel())
    n = targets.size
    unigram = -(counts * np.log((counts + 1) / (n + model.files.vocab_size))).sum() / n
    return FirstBatch(total / n, float(unigram))
