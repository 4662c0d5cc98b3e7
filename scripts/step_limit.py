"""The least time of a TopK step on a GPU, from flops and bytes alone: a prediction, nothing here is measured.

`python -m scripts.step_limit` prints the table of pipeline/train/README.md. Each pass takes the longest of three: its flops
at the peak rate, the bytes that it must read and write at the rate of the memory, and those together with what it gathers by
entry at the rate of the L2 cache. The passes follow one another. No launch, no auxiliary loss, no loading is in it.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Device:
    name: str
    flops: float  # bfloat16, dense, per second
    memory: float  # bytes per second
    cache: float  # bytes per second of the L2 cache; no data sheet has it, and it is an assumption


H100 = Device("H100 SXM", 989e12, 3.35e12, 5.5e12)
H200 = Device("H200", 989e12, 4.8e12, 5.5e12)


@dataclass(frozen=True)
class Pass:
    name: str
    flops: int
    bytes: int
    gathered: int

    def seconds(self, device: Device) -> float:
        return max(self.flops / device.flops, self.bytes / device.memory, (self.bytes + self.gathered) / device.cache)


def passes(d: int, d_sae: int, batch: int, k: int, *, table_bytes: int = 2, fused: bool = True) -> list[Pass]:
    """table_bytes: of a number of W_dec, of x and of the gradient where rows of them are gathered; 2 is what the step does in
    bfloat16. fused: the weights' gradients are made where they are used (sparse_update), not written and read (bag, update)."""
    weights, rows, entries = d * d_sae, batch * d, batch * k
    gathered, groups = table_bytes * entries * d, batch * d_sae // 64
    cast = (4 + 2) * (weights + rows)
    tables = [Pass("W_dec, gradient to bfloat16", 0, cast, 0)] if table_bytes == 2 else []
    steps = []
    for name in ("W_dec", "W_enc"):
        if fused:  # weight and both moments are read and written
            steps.append(Pass(f"gradient and step of {name}", 0, 6 * 4 * weights + table_bytes * rows, gathered))
        else:
            steps.append(Pass(f"gradient of {name} (bag)", 0, 4 * weights + table_bytes * rows, gathered))
            steps.append(Pass(f"step of {name}", 0, 7 * 4 * weights, 0))
    return [
        Pass("W_enc, x to bfloat16", 0, cast, 0),
        *tables,
        Pass("encode", 2 * batch * weights, 2 * (weights + rows + batch * d_sae + groups), 0),
        Pass("the k largest", 0, 2 * groups + 2 * 64 * entries + 12 * entries, 0),
        Pass("decode (bag)", 0, table_bytes * weights + 4 * rows, gathered),
        Pass("loss and its gradient", 0, 3 * 4 * rows, 0),
        Pass("gradient to the code (dots)", 0, table_bytes * weights + 4 * rows, gathered),
        Pass("the code by latents (a sort)", 0, 8 * 2 * 12 * entries, 0),
        *steps,
    ]


def summary(d: int = 768, d_sae: int = 24_576, batch: int = 8192, k: int = 32) -> list[str]:
    """Lines of a table in Markdown."""
    devices = (H100, H200)
    lines = [
        "| pass | GFLOP | MB of memory | MB gathered | " + " | ".join(f"{x.name}, ms" for x in devices) + " |",
        "|---|---|---|---|---|---|",
    ]
    own = passes(d, d_sae, batch, k)
    for one in own:
        times = " | ".join(f"{1e3 * one.seconds(device):.3f}" for device in devices)
        lines.append(
            f"| {one.name} | {one.flops / 1e9:.0f} | {one.bytes / 1e6:.0f} | {one.gathered / 1e6:.0f} | {times} |"
        )
    for name, all_passes, where in (
        ("all", own, devices),
        ("all, gradients written and read", passes(d, d_sae, batch, k, fused=False), devices),
        ("all, gathered tables in float32", passes(d, d_sae, batch, k, table_bytes=4), devices),
        ("all, were gathering free", own, [replace(device, cache=math.inf) for device in devices]),
    ):
        of_all = [sum(getattr(one, part) for one in all_passes) for part in ("flops", "bytes", "gathered")]
        seconds = [sum(one.seconds(device) for one in all_passes) for device in where]
        times = " | ".join(f"{1e3 * s:.2f} ({batch / s / 1e6:.1f}M tokens/s)" for s in seconds)
        lines.append(f"| {name} | {of_all[0] / 1e9:.0f} | {of_all[1] / 1e6:.0f} | {of_all[2] / 1e6:.0f} | {times} |")
    return lines


def main() -> None:
    print("\n".join(summary()))


if __name__ == "__main__":
    main()
