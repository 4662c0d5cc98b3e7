"""What changes with the step: all are pure functions of (step, n_steps)."""


def lr_factor(step: int, n_steps: int, warmup: float, decay: float) -> float:
    """What the learning rate is multiplied by: linear from 0 over the first `warmup` of the steps, 1, linear to 0
    over the last `decay` of them. step counts from 0."""
    up = (step + 1) / max(1.0, warmup * n_steps)
    down = (n_steps - step) / max(1.0, decay * n_steps)
    return min(1.0, up, down)


def sparsity_factor(step: int, n_steps: int, warmup: float) -> float:
    """What the sparsity coefficient is multiplied by: linear from 0 to 1 over the first `warmup` of the steps."""
    return min(1.0, step / max(1.0, warmup * n_steps))
