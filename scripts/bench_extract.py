"""Speed of extraction at GPT-2 small's shape against TransformerLens, and what writing the store costs.

    python -m scripts.bench_extract [--sequences 16] [--rounds 2]

Random weights, 512 tokens of context, hook points blocks.8.hook_resid_pre and blocks.8.mlp.hook_post; the rounds go
through all contestants in turn, medians count. Both of TransformerLens's models stop after layer 8 and cache these hook
points alone; the peer is the faster one. Each contestant takes 1, 4 or 16 sequences at a time, what is fastest for it.
Then the same of Pythia-70m's shape and of a Llama's (512 coordinates, 8 layers, half as many key heads), layer 3, against
TransformerLens and against transformers' own forward, cut off after the same layer and with no hook.
memory_GB is the peak of a process that extracts three shards at two hook points, and at all 24 of MLPs and residual stream.
Writes runs/bench/extract.json.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.extract import stage
from pipeline.extract.capture import capture
from pipeline.extract.config import ExtractConfig
from pipeline.extract.description import describe
from pipeline.models.files import DEMO, ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from pipeline.units import Unit
from scripts import bench_architectures
from scripts.bench import medians, report
from stores.lease import Leases
from stores.writer import StoreWriter

HOOK_POINTS = ("blocks.8.hook_resid_pre", "blocks.8.mlp.hook_post")
CONTEXT = 512
BATCHES = (1, 4, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = random_gpt2(Path(folder) / "gpt2")
        memory = {n: _peak_bytes(files.folder, n) for n in (2, 24)}
        tokens = np.random.default_rng(0).integers(0, 4096, (args.sequences, CONTEXT), dtype=np.int32)
        own = {precision: load_model(files, precision=precision) for precision in ("float32", "bfloat16")}
        peers = {"HookedTransformer": _hooked_transformer(files), "TransformerBridge": _bridge(files)}
        difference = _largest_difference(own["float32"], peers["HookedTransformer"], tokens[:2])
        work: dict[str, Callable[[], Any]] = {}
        for size in BATCHES:
            work |= {f"{p} {size}": lambda m=m, size=size: _forward(m, tokens, size) for p, m in own.items()}
            work |= {f"{name} {size}": lambda f=f, size=size: f(tokens, size) for name, f in peers.items()}
        seconds = medians(work, args.rounds)
        rate = {name: tokens.size / min(seconds[f"{name} {size}"] for size in BATCHES) for name in (*own, *peers)}
        peer = max(peers, key=lambda name: rate[name])
        writing = {
            precision: _write_overhead(files, model, Path(folder), args.sequences, args.rounds)
            for precision, model in own.items()
        }
        others = bench_architectures.figures(Path(folder), args.sequences, args.rounds)
    report(
        "extract",
        {
            "vs_transformer_lens_fp32": rate["float32"] / rate[peer],
            "vs_transformer_lens_bf16": rate["bfloat16"] / rate[peer],
            "write_overhead": writing["float32"],
            "write_overhead_bf16": writing["bfloat16"],
            "largest_relative_difference": difference,
            **{f"memory_GB {n} hook points": peak / 1e9 for n, peak in memory.items()},
            "peer": peer,
            **{f"tokens_per_s {name}": r for name, r in rate.items()},
            **others,
        },
    )


def _peak_bytes(model: Path, n_hook_points: int) -> int:
    """Of a process of its own that does nothing but _fill_three_shards."""
    code = f"from scripts.bench_extract import _fill_three_shards as f; print(f({str(model)!r}, {n_hook_points}))"
    return int(subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout)


def _fill_three_shards(model: str, n_hook_points: int) -> int:
    """The peak of this process's memory in bytes."""
    names = ("hook_resid_post", "mlp.hook_post")
    hook_points = tuple(f"blocks.{layer}.{name}" for layer in range(n_hook_points // 2) for name in names)
    config = ExtractConfig(model=model, hook_points=hook_points, context=128, n_rows=1 << 20, precision="bfloat16")
    files = ModelFiles.find(model)
    with tempfile.TemporaryDirectory() as folder:
        unit = Unit("extract", "bench", Path(folder), 0, {}, {"text": {}})
        writer = StoreWriter.create(Path(folder) / "store.zarr", describe(config, files, unit, None))
        with Leases(writer.place) as leases:
            stage.fill(config, load_model(files, precision="bfloat16"), writer, [0, 1, 2], leases)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def random_gpt2(folder: Path, **shape: int) -> ModelFiles:
    """shape: of a GPT2Config, where it is not GPT-2 small's."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):  # any ids below 50,257 cost the same
        (folder / name).write_text((DEMO / name).read_text())
    return ModelFiles.find(str(folder))


def _forward(model: LanguageModel, tokens: np.ndarray, size: int) -> None:
    forward(model, tokens, size, HOOK_POINTS)


def forward(model: LanguageModel, tokens: np.ndarray, size: int, hook_points: tuple[str, ...]) -> None:
    capture(model, tokens, hook_points, tuple(range(1, tokens.shape[1])), size, "float16")


def _hooked_transformer(files: ModelFiles) -> Callable[[np.ndarray, int], dict[str, torch.Tensor]]:
    import transformer_lens as lens
    from transformers import GPT2LMHeadModel

    config = lens.HookedTransformerConfig(
        n_layers=12, d_model=768, n_ctx=1024, d_head=64, n_heads=12, d_vocab=50257, act_fn="gelu_new",
        normalization_type="LN",
    )  # fmt: skip
    theirs = lens.HookedTransformer(config)
    reference = GPT2LMHeadModel.from_pretrained(files.folder, dtype=torch.float32)
    state = lens.loading_from_pretrained.convert_gpt2_weights(reference, config)
    theirs.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return lambda tokens, size: _run_with_cache(theirs, tokens, size)


def _bridge(files: ModelFiles) -> Callable[[np.ndarray, int], dict[str, torch.Tensor]]:
    from transformer_lens.model_bridge import TransformerBridge

    theirs = TransformerBridge.boot_transformers(str(files.folder), device="cpu")
    return lambda tokens, size: _run_with_cache(theirs, tokens, size)


@torch.no_grad()
def _run_with_cache(model: Any, tokens: np.ndarray, size: int) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {h: torch.empty(0) for h in HOOK_POINTS}
    for batch in torch.from_numpy(tokens.astype(np.int64)).split(size):
        _, cache = model.run_with_cache(batch, names_filter=list(HOOK_POINTS), stop_at_layer=9)
        for hook_point in HOOK_POINTS:
            found[hook_point] = cache[hook_point]
    return found


def _largest_difference(own: LanguageModel, peer: Callable[..., dict[str, torch.Tensor]], tokens: np.ndarray) -> float:
    """Of all activations of two sequences, over their root mean square."""
    ours, _ = own.forward(torch.from_numpy(tokens.astype(np.int64)), capture=HOOK_POINTS)
    theirs = peer(tokens, len(tokens))
    return max(float((ours[h] - theirs[h]).abs().max() / theirs[h].square().mean().sqrt()) for h in HOOK_POINTS)


def _write_overhead(files: ModelFiles, model: LanguageModel, folder: Path, sequences: int, rounds: int) -> float:
    """The time of filling a store of six shards over that of the forward pass alone, less 1. The last shard's writing,
    which nothing runs beside, is in it."""
    seconds = filling(files, model, folder, (6 * sequences, CONTEXT), 4, HOOK_POINTS, rounds)
    return seconds["store"] / seconds["forward"] - 1


def filling(
    files: ModelFiles,
    model: LanguageModel,
    folder: Path,
    tokens: tuple[int, int],
    size: int,
    hook_points: tuple[str, ...],
    rounds: int,
) -> dict[str, float]:
    """Seconds of filling a store of six shards ("store"), and of the forward pass alone ("forward"). tokens: so many
    sequences, which six divides, of so many tokens; size: sequences at a time."""
    n, context = tokens
    config = ExtractConfig(
        model=str(files.folder), hook_points=hook_points, context=context, n_rows=n * (context - 1),
        chunk_rows=n // 6 * (context - 1), shard_chunks=1, precision=model.precision, batch_sequences=size,
    )  # fmt: skip
    unit = Unit("extract", "bench", folder, 0, {}, {"text": {}})
    description, turn = describe(config, files, unit, None), count()

    def extract() -> None:
        writer = StoreWriter.create(folder / f"{model.precision}-{next(turn)}.zarr", description)
        with Leases(writer.place) as leases:
            stage.fill(config, model, writer, writer.missing(), leases)
        writer.close()

    ids = np.random.default_rng(0).integers(0, 4096, tokens, dtype=np.int32)
    work = {"store": extract, "forward": lambda: forward(model, ids, size, hook_points)}
    return medians(work, rounds, model.device)


if __name__ == "__main__":
    started = time.time()
    main()
    print(f"{time.time() - started:.0f} s")
