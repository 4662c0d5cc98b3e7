"""What changes with the step: all are pure functions of (step, n_steps), and step counts from 0."""

import math


def lr_factor(step: int, n_steps: int, warmup: float, decay: float, shape: str = "linear") -> float:
    """What the learning rate is multiplied by: linear from 0 over the first `warmup` of the steps, 1, and to 0 over the
    last `decay` of them, in a line or half a cosine."""
    up = (step + 1) / max(1.0, warmup * n_steps)
    down = min(1.0, (n_steps - step) / max(1.0, decay * n_steps))
    if shape == "cosine":
        down = 0.5 - 0.5 * math.cos(math.pi * down)
    return min(1.0, up, down)


def sparsity_factor(step: int, n_steps: int, warmup: float) -> float:
    """What the sparsity coefficient is multiplied by: linear from 0 to 1 over the first `warmup` of the steps."""
    return min(1.0, step / max(1.0, warmup * n_steps))


def k_at(step: int, n_steps: int, start: int, end: int, over: float) -> int:
    """k, linear from start to end over the first `over` of the steps."""
    progress = min(1.0, step / max(1.0, over * n_steps))
    return round(start + (end - start) * progress)


def crossed(step: int, size: int, every: int) -> bool:
    """Whether the step, of `size` tokens, passes or reaches a multiple of `every` tokens."""
    return (step + 1) * size // every > step * size // every
