"""A small training alone, and beside processes that are busy all the time.

    python -m scripts.bench_neighbour [--rounds 3] [--seconds 4]

ReLU-L1, d 64, 512 features, batches of 1,024 from a store in memory. With threads that spin while they wait for each other,
as GNU OpenMP's do by default, with threads that soon sleep, as `import pipeline` has them, and with one thread; alone, beside
one busy process, and beside one for each core. All take turns, each in a process of its own; medians of the steps per second.
What else runs on the machine is a neighbour too: the load average stands with the figures. Writes runs/bench/neighbour.json.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from pipeline.train.loop import train
from pipeline.train.memory import keep_freed
from scripts.bench import report, store_of_noise
from scripts.contestants import learner, source_of
from stores.cpus import cpus_here
from stores.loader import BatchLoader

HOOK_POINT, N_STEPS, WARM_UP = "blocks.0.hook_resid_post", 10**6, 5
WAYS = {"spinning": {"GOMP_SPINCOUNT": "300000"}, "soon_sleeping": {}, "one_thread": {"OMP_NUM_THREADS": "1"}}
_OF_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--store", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.store:
        print(_steps_per_s(Path(args.store), args.seconds))
        return
    found, load = defaultdict(list), []
    with tempfile.TemporaryDirectory() as folder:
        store_of_noise(Path(folder) / "noise.zarr", HOOK_POINT, 64, 32_768, 4096, 64)
        for _ in range(args.rounds):
            for n_busy in sorted({0, 1, cpus_here()}):
                busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_busy)]
                try:
                    for way, own in WAYS.items():
                        speed = _in_a_process(Path(folder) / "noise.zarr", args.seconds, own)
                        found[way, n_busy].append(speed)
                        load.append(os.getloadavg()[0])
                        print(f"{way} beside {n_busy}: {speed:.1f} steps/s, load {load[-1]:.1f}", flush=True)
                finally:
                    for process in busy:
                        process.kill()
    median = {key: statistics.median(speeds) for key, speeds in found.items()}
    figures = {f"{way}_beside_{n}_steps_per_s": speed for (way, n), speed in median.items()}
    figures |= {f"{way}_beside_{n}_times_as_long": median[way, 0] / speed for (way, n), speed in median.items() if n}
    report("neighbour", figures | {"load_average": statistics.median(load)})


def _in_a_process(store: Path, seconds: float, own: dict[str, str]) -> float:
    environment = {name: value for name, value in os.environ.items() if name not in _OF_WAITING} | own
    command = [sys.executable, "-m", "scripts.bench_neighbour", "--store", str(store), "--seconds", str(seconds)]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def _steps_per_s(path: Path, seconds: float) -> float:
    from stores.activations import ActivationStore

    keep_freed()
    store = ActivationStore.open(path)
    source = source_of(store.stats(HOOK_POINT), HOOK_POINT)
    learners = {"one": learner("relu_l1", source, d_sae=512)}
    loader = BatchLoader(store, (HOOK_POINT,), 1024, seed=0, n_steps=N_STEPS, residency="ram")
    started = 0.0
    for told in train(learners, loader, source, N_STEPS):
        if told.step == WARM_UP:
            started = time.perf_counter()
        elif told.step > WARM_UP and (passed := time.perf_counter() - started) > seconds:
            return (told.step - WARM_UP) / passed
    raise AssertionError("the steps are endless")


if __name__ == "__main__":
    main()
