"""What a machine with a GPU does: extraction, loading, the training step beside other libraries', a profile, the demo.

    make gpu                                                     # the tests marked gpu, and this
    python -m scripts.bench_gpu [--parts extract load step large profile demo]
    python -m scripts.bench_gpu --device cpu --small             # the same code at a tiny size, in seconds

extract: a model of GPT-2 small's shape with random weights, tokens/s of the forward pass, and what part of the rate of one
large product its flops come to; then with a store of them written. load: shuffled rows/s by where they lie. step: a TopK
step at 768 x 24,576 on rows that are on the device, in turns with every library that is installed, beside what
scripts/step_limit.py computes. large: 4,096 x 131,072, one library after another. profile: kernels of a training from a
store, and what the host waits for. demo: the recipe `demo` from its beginning to its scores. Times are between events of
the device, medians of some turns. A part that fails is told in one line, the others go on, and the exit code is 1.
Writes runs/bench/gpu-DEVICE.json, and DEVICE.md, a table.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scripts.bench import medians, report
from scripts.contestants import Sizes

HOOK_POINT = "blocks.8.hook_resid_pre"


@dataclass(frozen=True)
class Scale:
    """model: of a GPT2Config, where it is not GPT-2 small's; batches, in sequences. rows: of a store of sizes[0].d_in numbers a
    row, chunk_rows to a chunk. product: of a square matrix."""

    model: dict[str, int]
    context: int
    sequences: int
    batches: tuple[int, ...]
    rows: int
    chunk_rows: int
    sizes: tuple[Sizes, Sizes]
    product: int
    rounds: int
    steps: int


FULL = Scale(
    model={}, context=512, sequences=192, batches=(16, 64), rows=96 * 8192, chunk_rows=8192,
    sizes=(Sizes(768, 24_576, 32, 8192), Sizes(4096, 131_072, 64, 8192)), product=8192, rounds=5, steps=10,
)  # fmt: skip
SMALL = Scale(
    model={
        "n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": 4096, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0,
    },
    context=16, sequences=6, batches=(2,), rows=2048, chunk_rows=256,
    sizes=(Sizes(32, 2048, 4, 128), Sizes(64, 1024, 4, 128)), product=64, rounds=1, steps=2,
)  # fmt: skip


@dataclass
class Bench:
    """What the parts share. lines: of a table in Markdown, (what, figure)."""

    device: str
    scale: Scale
    folder: Path
    lines: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, what: str, figure: str) -> None:
        self.lines.append((what, figure))
        print(f"{what}: {figure}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--check", action="store_true", help="say whether there is such a device, and nothing else")
    args = parser.parse_args(arguments)
    if torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        print(f"PyTorch {torch.__version__}, {build}, sees no CUDA device here", file=sys.stderr)
        return 2
    if args.check:
        return 0
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device
    figures: dict[str, Any] = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.device, SMALL if args.small else FULL, Path(folder))
        for part in args.parts:
            try:
                figures |= PARTS[part](bench)
            except Exception as error:
                failed.append(f"{part}: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
                print(f"{failed[-1]}: this part is left out", file=sys.stderr, flush=True)
            if args.device.startswith("cuda"):
                torch.cuda.empty_cache()
    file = "gpu-" + re.sub(r"[^A-Za-z0-9.]+", "-", name)
    report(file, figures | {"failed": failed})
    path = Path("runs/bench") / f"{file}.md"
    path.write_text("\n".join(table(name, bench.lines, failed)) + "\n")
    print(f"written: {path}")
    return 1 if failed else 0


def table(name: str, lines: list[tuple[str, str]], failed: list[str]) -> list[str]:
    """Lines of a table in Markdown."""
    head = f"{name}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}"
    rows = [f"| {what} | {figure} |" for what, figure in lines]
    return [f"| {head} | |", "|---|---|", *rows, *(f"| failed | {line} |" for line in failed)]


def extraction(bench: Bench) -> dict[str, Any]:
    import numpy as np

    from pipeline.models.load import load_model
    from scripts.bench_extract import filling, forward, random_gpt2

    scale, device, figures = bench.scale, bench.device, dict[str, Any]()
    files = random_gpt2(bench.folder / "gpt2", **scale.model)
    n, d = files.n_layers, files.sizes.d_model
    hook_points = (f"blocks.{n // 2}.mlp.hook_post", f"blocks.{n - 1}.hook_resid_post")
    tokens = np.random.default_rng(0).integers(0, 4096, (scale.sequences, scale.context), dtype=np.int32)
    # A product of m numbers with a matrix of m x n takes 2mn; scores and their sums over the half of the keys that is seen.
    flops = n * (24 * d * d + 2 * scale.context * d)
    for precision in ("float32", "bfloat16"):
        model: Any = load_model(files, device=device, precision=precision)  # type: ignore[arg-type]
        work = {str(size): lambda m=model, size=size: forward(m, tokens, size, hook_points) for size in scale.batches}
        rate = tokens.size / min(medians(work, scale.rounds, device).values())
        part = rate * flops / product_rate(bench, getattr(torch, precision))
        bench.tell(
            f"forward pass of a GPT-2 of {n} layers, d_model {d}, {precision}",
            f"{rate:,.0f} tokens/s; {flops * rate / 1e12:.3g} TFLOP/s, {part:.0%} of one large product",
        )
        figures |= {f"extract_{precision}_tokens_per_s": rate, f"extract_{precision}_fraction_of_product": part}
    # The model of the last precision.
    own = filling(
        files, model, bench.folder, (scale.sequences, scale.context), scale.batches[-1], hook_points, scale.rounds
    )
    rate = tokens.size / own["store"]
    bench.tell("the same with a store of two hook points written, bfloat16", f"{rate:,.0f} tokens/s")
    return figures | {"extract_store_tokens_per_s": rate, "extract_write_overhead": own["store"] / own["forward"] - 1}


def product_rate(bench: Bench, dtype: torch.dtype) -> float:
    """Flops a second of a product of two square matrices."""
    n = bench.scale.product
    a, b = (torch.randn(n, n, device=bench.device).to(dtype) for _ in range(2))
    return 2 * n**3 / medians({"": lambda: a @ b}, bench.scale.rounds, bench.device)[""]


def loading(bench: Bench) -> dict[str, Any]:
    from stores.loader import BatchLoader

    size, steps, work = bench.scale.sizes[0].batch, bench.scale.steps, dict[str, Callable[[], Any]]()
    store = _store(bench)
    for residency in ("gpu", "ram", "stream"):
        loader = BatchLoader(
            store, (HOOK_POINT,), size, seed=0, n_steps=10**9, residency=residency, device=bench.device
        )
        batches = iter(loader)
        work[residency] = lambda batches=batches: [next(batches) for _ in range(steps)]
    seconds = medians(work, bench.scale.rounds, bench.device)
    rates = {residency: steps * size / s for residency, s in seconds.items()}
    d = bench.scale.sizes[0].d_in
    told = ", ".join(f"{residency} {rate:,.0f}" for residency, rate in rates.items())
    bench.tell(f"shuffled rows/s of {d} float16 numbers, by residency", told)
    return {f"load_{residency}_rows_per_s": rate for residency, rate in rates.items()}


def _store(bench: Bench) -> Any:
    """Of noise; made once."""
    from scripts.bench import store_of_noise
    from stores.activations import ActivationStore

    path, scale = bench.folder / "noise.zarr", bench.scale
    if path.exists():
        return ActivationStore.open(path)
    return store_of_noise(path, HOOK_POINT, scale.sizes[0].d_in, scale.rows, scale.chunk_rows, scale.chunk_rows // 16)


def step(bench: Bench) -> dict[str, Any]:
    from scripts.gpu_step import against_peers

    return against_peers(bench, bench.scale.sizes[0], "step", together=True)


def large(bench: Bench) -> dict[str, Any]:
    from scripts.gpu_step import against_peers

    return against_peers(bench, bench.scale.sizes[1], "large", together=False)


def profile(bench: Bench) -> dict[str, Any]:
    from scripts.gpu_profile import profiled

    return profiled(bench, _store(bench), HOOK_POINT)


def demo(bench: Bench) -> dict[str, Any]:
    """In a process of its own, as a user starts it."""
    root = str(Path(__file__).parents[1])
    command = [sys.executable, "-m", "pipeline", "run", "demo", "--device", bench.device.partition(":")[0]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=bench.folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"unmix run demo: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    scores = json.loads((bench.folder / "runs" / "demo" / "score" / "scores.json").read_text())
    n = len(scores["dictionaries"])
    bench.tell("the recipe demo: extract, train, score", f"{seconds:.0f} s, {n} dictionaries")
    return {"demo_s": seconds, "demo_dictionaries": n}


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "extract": extraction, "load": loading, "step": step, "large": large, "profile": profile, "demo": demo,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
