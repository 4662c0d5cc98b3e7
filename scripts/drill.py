"""The failure drill: faults in every stage, then what the messages say to do, until the run is whole or nothing helps.

    python -m scripts.drill [--n 300] [--seed 0] [--only NAME]

Each fault hits a copy of a run at some stage of its life. Then the drill does what a user would: it runs `unmix run`
again, and where that fails, the command in the message. The end must be the run that nothing disturbed: the store's
digest, every dictionary's weights, every score. The table and runs/bench/drill.json say for each kind of fault how often it was
tried, what was lost, which ends were wrong and where no command led on.

Commands run in processes of their own, forked from this one, which has the libraries loaded: 300 faults are a thousand
commands, and loading takes longer than most of them.
"""

import argparse
import errno
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "COLUMNS": "200"}

import torch

from scripts.bench import report
from scripts.faults import (
    DAMAGES,
    Point,
    alarm,
    always_failing,
    at,
    die,
    failing,
    hasty,
    jumping_clock,
    listing,
    little_memory,
    slow_fsync,
    stand_still,
)  # fmt: skip
from scripts.forked import Child, run
from scripts.recovery import Row, last_line, outcome, recover

torch.set_num_threads(1)

HOOKS = ("blocks.1.hook_resid_post", "blocks.0.mlp.hook_post")
RECIPE = f"""
[extract]
model = "model"
hook_points = {json.dumps(HOOKS)}
context = 32
n_rows = 3000
chunk_rows = 155
shard_chunks = 2
batch_sequences = 16
heldout_fraction = 0.1
dtype = "float32"
text = {{ source = "files", path = "text" }}
[train]
batch_size = 128
n_tokens = 6400
checkpoint_every_steps = 10
[train.topk]
d_sae = 48
k = 4
seed = [0, 1]
[train.relu_l1]
d_sae = 48
[train.pca]
[score]
n_sequences = 8
at_l0 = [4]
"""
STARTS = 40  # of four processes that extract one store


class Drill:
    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, random.Random(seed)
        self.rows: list[Row] = []
        make_inputs(folder)
        before = None
        for stage in ("extract", "train", "score"):
            made = folder / "runs" / f"after-{stage}"
            if before:
                shutil.copytree(before, made, symlinks=True)
            code, said = run(folder, stage, "drill.toml", "--name", made.name)
            assert code == 0, said
            before = made
        self.expected = outcome(folder, "after-score")

    @cached_property
    def named(self) -> list[str]:
        """The paths that get their names in a run that nothing disturbs."""
        run(self.folder, "run", "drill.toml", "--name", "names", hooks=[listing(self.folder / "names.txt")])
        return [p for p in (self.folder / "names.txt").read_text().splitlines() if "/runs/names/" in p]

    def fresh(self, after: str | None) -> str:
        """A run folder of its own, with the stages done that come before the fault."""
        name = "run"
        shutil.rmtree(self.folder / "runs" / name, ignore_errors=True)
        if after:
            shutil.copytree(self.folder / "runs" / f"after-{after}", self.folder / "runs" / name, symlinks=True)
        return name

    def row(self, fault: str, detail: str) -> Row:
        return Row(fault, detail, [])

    def check(self, name: str, row: Row, command: str = "run", ends: Sequence[int | None] = ()) -> None:
        """ends: of processes that should have ended well."""
        recover(self.folder, name, row, command)
        found = outcome(self.folder, name)
        expected = self.expected if command == "run" else {"store": self.expected["store"]}
        row.lost = set(found) != set(expected) or found["store"].startswith("none")
        row.wrong = any(found[key] != value for key, value in expected.items() if key in found)
        row.dead_end |= any(code != 0 for code in ends)
        self.rows.append(row)
        mark = "" if not (row.lost or row.wrong or row.dead_end or row.traceback) else "   <-- " + str(row)
        print(f"{len(self.rows):4} {row.fault}: {row.detail} {row.hops} hops{mark}", flush=True)

    def inside(self, fault: str, hooks: list[Callable[[], None]], detail: str, after: str | None = None) -> None:
        name = self.fresh(after)
        code, said = run(self.folder, "run", "drill.toml", "--name", name, hooks=hooks)
        row = Row(fault, detail, [f"exit {code}: {last_line(said)}"], traceback="Traceback" in said)
        self.check(name, row)

    def together(
        self, fault: str, hooks: list[list[Callable[[], None]]], detail: str, killed: int = 0, command: str = "run"
    ) -> None:
        """Processes that start at once. killed: how many, of the first ones, may end in another way than well."""
        name = self.fresh(None)
        children = [Child([command, "drill.toml", "--name", name], self.folder, own).start() for own in hooks]
        ends = [child.wait() for child in children]
        row = Row(fault, detail, [f"exit {code}: {last_line(said)}" for code, said in ends])
        row.traceback = any("Traceback" in said for _, said in ends)
        self.check(name, row, command, [code for code, _ in ends[killed:]])

    def standing_still(self, fault: str, where: Point) -> None:
        """A process stops, another takes its work over, then the first one wakes up."""
        name = self.fresh(None)
        arguments = ["run", "drill.toml", "--name", name]
        first = Child(arguments, self.folder, [hasty, at(where, stand_still)]).start()
        _pid, _ = os.waitpid(first.pid, os.WUNTRACED)
        second = Child(arguments, self.folder, [hasty]).start()
        code, said = second.wait()
        os.kill(first.pid, signal.SIGCONT)
        ends = [(code, said), first.wait()]
        row = Row(fault, where[1], [f"exit {code}: {last_line(said)}" for code, said in ends])
        row.traceback = any("Traceback" in said for _, said in ends)
        self.check(name, row, ends=[code for code, _ in ends])

    def damaged(self, kind: str, after: str) -> None:
        name = self.fresh(after)
        files = sorted(p for p in (self.folder / "runs" / name).rglob("*") if p.is_file() and p.suffix != ".png")
        path = self.rng.choice(files)
        DAMAGES[kind](path, self.rng)
        self.check(name, Row(kind, f"after {after}: {path.relative_to(self.folder / 'runs' / name)}", []))


def make_inputs(folder: Path) -> None:
    """A model of two layers, text, a recipe."""
    from transformers import GPT2Config, GPT2LMHeadModel

    from pipeline.extract.stdlib import stdlib_files
    from pipeline.models.files import DEMO

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=4096, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / name, folder / "model" / name)
    (folder / "text").mkdir()
    for i, path in enumerate(stdlib_files("heldout")[:8]):
        (folder / "text" / f"{i}.txt").write_text(path.read_text(encoding="utf-8")[:8000])
    (folder / "drill.toml").write_text(RECIPE)


def faults(drill: Drill, n: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """n faults: each kind its share, their places drawn from the seed; and the rounds of four extractions."""
    rng = drill.rng
    share = max(1, n // 20)

    def point(kind: str = "name") -> Point:
        path = rng.choice(drill.named).split("/runs/names/")[1]
        pattern = re.sub(r"[0-9a-f]{32}", "*", re.sub(r"\[", "[[]", path))
        return kind, f"*/runs/run/{pattern}", 1

    def steps(fault: str, happen: Callable[[str], None], times: int) -> Iterator[tuple[str, Callable[[], None]]]:
        for _ in range(times):
            where = point()
            yield fault, partial(drill.inside, fault, [at(where, happen)], where[1])

    half = max(1, share // 2)
    yield from steps("SIGKILL at a step", die, 5 * share)
    yield from steps("disk full at a step", failing(errno.ENOSPC), 2 * share)
    yield from steps("I/O error at a step", failing(errno.EIO), half)
    for _ in range(share):
        seconds = rng.uniform(0.1, 4.0)
        fault = "SIGKILL at random"
        yield fault, partial(drill.inside, fault, [partial(alarm, seconds)], f"after {seconds:.2f} s")
    for _ in range(half):
        pattern = rng.choice(["*/runs/run/*", "*/runs/run/extract/*", "*/runs/run/train/*", "*/runs/run/score/*"])
        yield "read-only", partial(drill.inside, "read-only", [always_failing(errno.EROFS, pattern)], pattern)
        fault = "a clock that jumps"
        yield fault, partial(drill.inside, fault, [jumping_clock], "by days, either way")
        yield "memory limit", partial(drill.inside, "memory limit", [little_memory], "40 MB more than it starts with")
        where = point()
        fault = "stands still, loses its work"
        yield fault, partial(drill.standing_still, fault, where)
    for _ in range(2 * share):
        k = rng.choice([2, 2, 3, 4, 8])
        yield "several at once", partial(drill.together, "several at once", [[] for _ in range(k)], f"{k} processes")
    for _ in range(half // 2):
        fault = "several at once, slow fsync"
        yield fault, partial(drill.together, fault, [[slow_fsync]] * 3, "3 processes, 100 ms")
    for slow in (False, True):
        for i in range(STARTS):
            fault = "four extractions at once" + (", slow fsync" if slow else "")
            yield (
                fault,
                partial(drill.together, fault, [[slow_fsync] if slow else []] * 4, f"round {i + 1}", command="extract"),
            )
    for _ in range(share):
        k, where = rng.choice([2, 3, 4]), point()
        hooks = [[at(where, die)], *[[] for _ in range(k - 1)]]
        fault = "several, one killed"
        yield fault, partial(drill.together, fault, hooks, f"{k} processes, {where[1]}", killed=1)
    for _ in range(6 * share):
        kind, after = rng.choice(list(DAMAGES)), rng.choice(["extract", "train", "score"])
        yield kind, partial(drill.damaged, kind, after)


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults, and what they cost.")
    parser.add_argument("--n", type=int, default=300, help="how many faults, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only kinds whose name begins so")
    options = parser.parse_args()
    import pipeline.stages
    import pipeline.train.pictures  # noqa: F401  loaded once, here

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        drill = Drill(Path(folder), options.seed)
        for name, fault in faults(drill, options.n):
            if name.startswith(options.only):
                fault()
    table: dict[str, dict[str, int]] = {}
    for row in drill.rows:
        own = table.setdefault(
            row.fault, dict.fromkeys(("faults", "lost", "wrong_digest", "dead_ends", "tracebacks"), 0)
        )
        for key, value in zip(own, (1, row.lost, row.wrong, row.dead_end, row.traceback), strict=True):
            own[key] += int(value)
    total = {key: sum(own[key] for own in table.values()) for key in next(iter(table.values()))}
    print(f"{'fault':32}" + "".join(f"{key:>14}" for key in total))
    for name, own in [*table.items(), ("all", total)]:
        print(f"{name:32}" + "".join(f"{value:14}" for value in own.values()))
    figures = {**total, "minutes": round((time.monotonic() - started) / 60, 1), "seed": options.seed, "kinds": table}
    report("drill", figures)
    sys.exit(any(total[key] for key in ("lost", "wrong_digest", "dead_ends", "tracebacks")))


if __name__ == "__main__":
    main()
