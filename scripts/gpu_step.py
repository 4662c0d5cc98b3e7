"""The TopK step of each library on a device, and the least time that it can take there."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from scripts import contestants, step_limit
from scripts.bench import medians
from scripts.contestants import Contestant, Sizes, source_of
from stores.moments import Moments

if TYPE_CHECKING:
    from scripts.bench_gpu import Bench

LR = 1e-4


def against_peers(bench: "Bench", sizes: Sizes, name: str, *, together: bool) -> dict[str, Any]:
    """together: all are in memory and take turns; else one after another, each with its own turns."""
    device, n = bench.device, bench.scale.steps
    generator = torch.Generator(device).manual_seed(0)
    batches = [torch.randn(sizes.batch, sizes.d_in, device=device, generator=generator) for _ in range(4)]
    makers = _makers(sizes, device)
    entered: dict[str, Callable[[], Any]] = {}
    seconds: dict[str, float] = {}

    def turn(own: Contestant) -> Callable[[], Any]:
        return lambda: [own.step(batches[i % 4], i) for i in range(n)]

    for peer, make in makers.items():
        try:
            own = turn(make())
            own()  # compiles kernels, and takes what memory it takes
            if together:
                entered[peer] = own
            else:
                seconds |= medians({peer: own}, bench.scale.rounds, device)
        except (ImportError, RuntimeError) as error:  # what is out of memory is a RuntimeError, too
            print(f"{name}: {peer} is left out: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
        if not together:
            own = make = None
            if torch.device(device).type == "cuda":
                torch.cuda.empty_cache()
    seconds |= medians(entered, bench.scale.rounds, device)
    ms = {peer: 1e3 * s / n for peer, s in seconds.items()}
    figures: dict[str, Any] = {f"{name}_{peer}_ms": value for peer, value in ms.items()}
    least = limit_ms(sizes, device)
    for peer, value in ms.items():
        told = f"{value:.3g} ms, {sizes.batch / value / 1e3:.3g}M tokens/s"
        if peer == "topk" and least:
            told += f"; {least / value:.0%} of the computed limit, {least:.3g} ms"
            figures |= {f"{name}_limit_ms": least, f"{name}_fraction_of_limit": least / value}
        elif peer not in OURS and "topk" in ms:
            told += f"; topk is {value / ms['topk']:.3g} times as fast"
            figures[f"{name}_topk_vs_{peer}"] = value / ms["topk"]
        bench.tell(f"step {sizes}: {peer}", told)
    return figures


OURS = ("topk", "topk_half_dead")


def _makers(sizes: Sizes, device: str) -> dict[str, Callable[[], Contestant]]:
    d = sizes.d_in
    moments = Moments(10**6, np.zeros(d), np.ones(d), np.full(d, 5.0), float(np.sqrt(d)), 3.0)
    source, k = source_of(moments, "blocks.0.hook_resid_post"), sizes.k
    ours = contestants.ours
    return {
        "topk": lambda: ours("topk", source, sizes, device, k=k, lr=LR),
        "topk_half_dead": lambda: ours("topk", source, sizes, device, dead=sizes.d_sae // 2, k=k, lr=LR),
        "saelens": lambda: contestants.saelens("topk", LR, sizes, device),
        "saelens_autocast": lambda: contestants.saelens("topk", LR, sizes, device, autocast=True),
        "sparsify": lambda: contestants.sparsify(LR, torch.zeros(d), sizes, device),
        "dictionary_learning": lambda: contestants.dictionary_learning(LR, sizes, device),
        "dictionary_learning_autocast": lambda: contestants.dictionary_learning(LR, sizes, device, autocast=True),
    }


def limit_ms(sizes: Sizes, device: str) -> float | None:
    """By scripts/step_limit.py; None of a device that it does not know."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else ""
    known = step_limit.H200 if "H200" in name else step_limit.H100 if "H100" in name and "HBM3" in name else None
    if known is None:
        return None
    passes = step_limit.passes(sizes.d_in, sizes.d_sae, sizes.batch, sizes.k)
    return 1e3 * sum(one.seconds(known) for one in passes)
