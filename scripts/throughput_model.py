"""What several devices can reach at most in a TopK step, by what they multiply, read, gather and send: computed, not measured.

`python -m scripts.throughput_model` prints the table of pipeline/train/README.md. Each device makes the passes of
scripts/step_limit.py, under its assumptions, with one device nothing else; of n devices each has

    by rows      batch / n rows and all weights. Gradients are written and read, not made where they are used, and 20 + 4 / n
                 bytes more are moved for each: to bfloat16, what the others send, sums, and back to float32
    by features  d_sae / n latents, batch · k / n entries and all rows. Each selects the k largest of its own latents, and of
                 all candidates (16 bytes are moved for each); reconstructions are copied and added up

Then it waits for what is sent (messages), over the links one after another: by rows half of it, W_dec's, is on its way while
W_enc's gradient is made. Not in it: starting kernels and collectives, the auxiliary loss, reading the store.
"""

from dataclasses import dataclass

from scripts.step_limit import H100, H200, Device, Pass, passes


@dataclass(frozen=True)
class Step:
    """Of one autoencoder: d_in = d_out = d. batch: rows of the whole batch."""

    d: int
    d_sae: int
    k: int
    batch: int

    @property
    def weights(self) -> int:
        return 2 * self.d * self.d_sae


LINK = 450e9  # bytes a second that a device sends: NVLink 4 has 900 GB/s, both ways together (NVIDIA's data sheets)
DEVICES = (H100, H200)
STEPS = (Step(768, 24_576, 32, 8192), Step(768, 24_576, 32, 65_536), Step(4096, 131_072, 64, 8192))
COUNTS = (1, 2, 4, 8)
_LOGGED = 3  # numbers that are logged


def messages(step: Step, n: int, by: str) -> dict[str, int]:
    """Bytes that a device brings to the collectives of a step, by their kind: products in bfloat16, no auxiliary loss."""
    if by == "rows":  # weights' gradients, their sums; gradients of both biases, what fired, what is logged, float32
        others = 4 * (2 * step.d_sae + step.d + _LOGGED)
        return {"all_to_all": 2 * step.weights, "all_gather": 2 * step.weights // n, "all_reduce": others}
    # candidates in bfloat16 and three float64 numbers; reconstructions
    return {"all_to_all": 0, "all_gather": 2 * step.batch * step.k + 3 * 8, "all_reduce": 4 * step.batch * step.d}


def sent(step: Step, n: int, by: str) -> float:
    """Bytes that leave a device in a step: on a ring, of an all_reduce 2 (n - 1) / n of what it brings."""
    own = messages(step, n, by)
    return (n - 1) * (own["all_to_all"] / n + own["all_gather"] + 2 * own["all_reduce"] / n)


def own_passes(step: Step, n: int, by: str) -> list[Pass]:
    """Of one of n devices."""
    if by == "rows":
        found = passes(step.d, step.d_sae, step.batch // n, step.k, fused=n == 1)
        moved = 20 * step.weights + 4 * step.weights // n
        return found + ([Pass("gradients that are sent, and their sums", 0, moved, 0)] if n > 1 else [])
    found = passes(step.d, step.d_sae // n, step.batch, step.k // n)
    if n == 1:
        return found
    select = [one for one in passes(step.d, step.d_sae // n, step.batch, step.k) if one.name == "the k largest"]
    rest = [one for one in found if one.name != "the k largest"]
    exchanged = 16 * n * step.batch * step.k + 3 * 4 * step.batch * step.d
    return [*rest, *select, Pass("candidates and reconstructions", 0, exchanged, 0)]


def seconds(step: Step, device: Device, n: int, by: str, link: float = LINK) -> float:
    """Of a step of n devices that divide "rows" or "features"."""
    own = own_passes(step, n, by)
    waiting = sent(step, n, by) / link
    if by == "rows":
        meanwhile = sum(one.seconds(device) for one in own if one.name == "gradient of W_enc (bag)")
        waiting = max(waiting / 2, waiting - meanwhile)
    return sum(one.seconds(device) for one in own) + waiting


def table() -> str:
    head = f"| d x d_sae, k, batch | device | divided | {' | '.join(f'{n}' for n in COUNTS)} |"
    lines = [head, "|---" * (3 + len(COUNTS)) + "|"]
    for step in STEPS:
        for device in DEVICES:
            for by in ("rows", "features"):
                rates = [step.batch / seconds(step, device, n, by) / 1e6 for n in COUNTS]
                what = f"{step.d} x {step.d_sae:,}, {step.k}, {step.batch:,}"
                lines.append(f"| {what} | {device.name} | {by} | {' | '.join(f'{rate:.2g}' for rate in rates)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
