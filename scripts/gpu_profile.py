"""What a training from a store does on a device: kernels by time, and what the host waits for, by PyTorch's profiler."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.profiler import profile as recording

from pipeline.train.loop import train
from scripts.bench import seconds_of
from scripts.contestants import learner, source_of
from stores.activations import ActivationStore
from stores.loader import BatchLoader

if TYPE_CHECKING:
    from scripts.bench_gpu import Bench

_SHOWN = 12
_WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize")


def profiled(bench: "Bench", store: ActivationStore, hook_point: str) -> dict[str, Any]:
    """Of a TopK training with all rows on the device, without its end, at which the host waits for all."""
    device, sizes, n = bench.device, bench.scale.sizes[0], bench.scale.steps
    on_cuda = torch.device(device).type == "cuda"
    source = source_of(store.stats(hook_point), hook_point)
    learners = {"topk": learner("topk", source, device, d_sae=sizes.d_sae, k=sizes.k)}
    loader = BatchLoader(store, (hook_point,), sizes.batch, seed=0, n_steps=10**6, residency="gpu", device=device)
    steps = train(learners, loader, source, 10**6)

    def some() -> None:
        for _ in range(n):
            next(steps)

    some()  # compiles kernels
    wall = seconds_of(some, device)
    with recording(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as profiler:
        some()
    found = profiler.key_averages()
    steps.close()
    kernels = {e.key: (_us(e, on_cuda) / n / 1e3, e.count / n) for e in found if _counts(e, on_cuda)}
    calls = {e.key: e.count / n for e in found if e.device_type == DeviceType.CPU and e.key.startswith(("cuda", "cu"))}
    longest = sorted(kernels.items(), key=lambda item: -item[1][0])[:_SHOWN]
    busy = sum(ms for ms, _ in kernels.values()) / (1e3 * wall / n)
    figures: dict[str, Any] = {
        "profile_step_ms": 1e3 * wall / n,
        "profile_busy": busy,
        **{f"profile_calls_per_step {key}": count for key, count in sorted(calls.items())},
        **{f"profile_copies_per_step {key}": count for key, (_, count) in kernels.items() if key.startswith("Mem")},
        **{f"profile_ms {key}": ms for key, (ms, _) in longest},
    }
    what = "kernels" if on_cuda else "operators"
    bench.tell(
        f"training from a store, {sizes}",
        f"{1e3 * wall / n:.3g} ms a step; the {what} are {busy:.0%} of it",
    )
    if on_cuda:
        bench.tell("what the host does, a step", _listed((key, calls.get(key, 0.0)) for key in _of_host(calls)))
    for key, (ms, count) in longest:
        bench.tell(f"{what[:-1]} `{key[:60]}`", f"{ms:.3g} ms a step, {count:.3g} of them")
    return figures


def _of_host(calls: Iterable[str]) -> list[str]:
    """The waits, whether there are some or not, and the copies and launches that there are."""
    others = sorted(key for key in calls if "Memcpy" in key or "Memset" in key or "Launch" in key)
    return [*_WAITS, *others]


def _listed(counts: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{key} {count:.3g}" for key, count in counts)


def _counts(event: Any, on_cuda: bool) -> bool:
    """Whether it is work of the device, and no name that spans several kernels."""
    spans = bool(getattr(event, "is_user_annotation", False)) or "#" in event.key
    return not spans and (event.device_type == DeviceType.CUDA) == on_cuda


def _us(event: Any, on_cuda: bool) -> float:
    return event.self_device_time_total if on_cuda else event.self_cpu_time_total
