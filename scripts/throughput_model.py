"""What several devices can reach at most in a TopK step, by what they multiply, read, write and send: computed, not measured.

    python scripts/throughput_model.py

prints the table of pipeline/train/README.md. A step of a whole batch takes

    encoder      2 · batch · d · d_sae flops in bfloat16
    weights      36 bytes for each number of W_enc and W_dec, float32: read by the products (4), gradient written and
                 read (8), weight and both moments read and written by Adam (24)
    code         4 bytes for each pre-activation, bfloat16: written and read
    by rows      gradients in float32, summed over devices: each sends 2 (n - 1) / n of them
    by features  reconstructions in float32, summed over devices, and the k largest of each row of each device, sent to all
                 in bfloat16

one after another. Of the encoder's work and the code each device does its part; of the weights all of it by rows, its part
by features. Not in it: the sparse products, starting kernels, the auxiliary loss, reading the store.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """flops_s: bfloat16, dense. bytes_s: of its memory. link_bytes_s: that it can send to the others, each way."""

    name: str
    flops_s: float
    bytes_s: float
    link_bytes_s: float


@dataclass(frozen=True)
class Step:
    """Of one dictionary: d_in = d_out = d. batch: rows of the whole batch."""

    d: int
    d_sae: int
    k: int
    batch: int


# NVIDIA's data sheets: H100 SXM, H200 SXM; NVLink 4 has 900 GB/s, both ways together.
DEVICES = (Device("H100", 989e12, 3.35e12, 450e9), Device("H200", 989e12, 4.8e12, 450e9))
STEPS = (Step(768, 24_576, 32, 8192), Step(768, 24_576, 32, 65_536), Step(4096, 131_072, 64, 8192))
COUNTS = (1, 2, 4, 8)


def seconds(step: Step, device: Device, n: int, by: str) -> float:
    """Of a step of n devices that divide "rows" or "features"."""
    weights, code = 2 * step.d * step.d_sae, step.batch * step.d_sae
    flops = 2 * step.d * code / n
    if by == "rows":
        n_bytes, sent = 36 * weights + 4 * code / n, 2 * (n - 1) / n * 4 * weights
    else:
        n_bytes = (36 * weights + 4 * code) / n
        sent = 2 * (n - 1) / n * 4 * step.batch * step.d + (n - 1) * 2 * step.batch * step.k
    return flops / device.flops_s + n_bytes / device.bytes_s + sent / device.link_bytes_s


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
