"""Token sequences → activations at chosen hook points and positions."""

from collections.abc import Callable

import numpy as np
import torch
from tqdm import tqdm

from pipeline.models.protocol import LanguageModel
from stores import int8
from stores.description import stored_width


def capture(
    model: LanguageModel,
    tokens: np.ndarray,
    hook_points: tuple[str, ...],
    positions: tuple[int, ...],
    batch_sequences: int,
    dtype: str,
    bar: tqdm | None = None,
    look: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Per hook point (n_sequences · n_positions, d_stored), sequence by sequence, rounded to dtype on the device, as a store
    holds it. tokens: (n_sequences, context). look: is called before each batch, and may raise."""
    n, kept = len(tokens), getattr(torch, dtype)
    out = {h: torch.empty((n, len(positions), stored_width(model.files.d(h), dtype)), dtype=kept) for h in hook_points}
    contiguous = positions[-1] - positions[0] == len(positions) - 1  # a slice is read without an index
    places = slice(positions[0], positions[-1] + 1) if contiguous else torch.tensor(positions, device=model.device)
    for start in range(0, n, batch_sequences):
        look()
        batch = torch.from_numpy(tokens[start : start + batch_sequences].astype(np.int64))
        captured, _ = model.forward(batch.to(model.device), capture=hook_points)
        for hook_point, x in captured.items():
            x = int8.encode(x[:, places]) if dtype == "int8" else x[:, places]
            x = x if x.device.type == "cpu" else x.to(kept)  # halve what crosses the bus
            out[hook_point][start : start + len(batch)].copy_(x)
        if bar is not None:
            bar.update(batch.numel())
    flat = {h: x.reshape(n * len(positions), -1) for h, x in out.items()}
    return {
        h: (x.view(torch.int16).numpy().view(np.uint16) if dtype == "bfloat16" else x.numpy()) for h, x in flat.items()
    }
