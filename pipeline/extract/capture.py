"""Token sequences → activations at chosen hook points and positions."""

from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from pipeline.extract.language_model import LanguageModel


def capture(
    model: LanguageModel,
    tokens: np.ndarray,
    hook_points: tuple[str, ...],
    positions: tuple[int, ...],
    batch_sequences: int,
    bar: tqdm | None = None,
) -> dict[str, np.ndarray]:
    """Per hook point (n_sequences · n_positions, d) float32, sequence by sequence. tokens: (n_sequences, context)."""
    n = len(tokens)
    out = {h: np.empty((n, len(positions), model.files.d(h)), np.float32) for h in hook_points}
    places = torch.tensor(positions, device=model.device)
    for start, batch in _batches(tokens, batch_sequences):
        captured, _ = model.forward(batch.to(model.device), capture=hook_points)
        for hook_point, x in captured.items():
            out[hook_point][start : start + len(batch)] = x[:, places].cpu().numpy()
        if bar is not None:
            bar.update(batch.numel())
    return {h: x.reshape(n * len(positions), -1) for h, x in out.items()}


def _batches(tokens: np.ndarray, size: int) -> Iterator[tuple[int, torch.Tensor]]:
    for start in range(0, len(tokens), size):
        yield start, torch.from_numpy(tokens[start : start + size].astype(np.int64))
