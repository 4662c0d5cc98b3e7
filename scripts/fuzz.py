"""python -m scripts.fuzz: files that others wrote, altered at random, and what the readers say of them.

Each reader has to take an input or to refuse it with a UserError, StoreError or ValueError: one line that is not empty and
tells the file. Another exception, more than MAX_S seconds, more than MAX_BYTES of memory, or the end of the process is a
finding. Input i of a target is a function of (seed, target, i), so that a finding is seen again by

    python -m scripts.fuzz --target NAME --seed SEED --first I --number 1

The table goes into runs/bench/fuzz.json, altered files that were findings lie beside it. Exit code 1: there were findings.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from pipeline.config import UserError
from scripts.fuzz_targets import TARGETS, Target
from scripts.mutate import mutate

MAX_S, MAX_BYTES = 5.0, 500 * 10**6
SHOWN = 5  # findings of a target that are printed


@dataclass
class Counts:
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    findings: list[dict[str, Any]] = field(default_factory=list)


class _TooLong(BaseException):
    """Not an Exception: nothing that is tried may catch it."""


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """Less address space, an alarm, no output."""

    def late(signal: int, frame: object) -> None:
        raise _TooLong

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    kept, before = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, late)
    limit = used + MAX_BYTES if kept[1] == resource.RLIM_INFINITY else min(used + MAX_BYTES, kept[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, kept[1]))
    signal.setitimer(signal.ITIMER_REAL, MAX_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, kept)


def altered(target: Target, folder: Path, seed: int, i: int) -> Path:
    """Alter a file of the folder, as input i has it. Returns which."""
    random = Random(f"{seed} {target.name} {i}")
    file = random.choice(sorted(folder.glob(target.file)))
    file.write_bytes(mutate(random, file.read_bytes(), target.kind))
    return file


def try_input(target: Target, folder: Path, file: Path) -> tuple[str, str]:
    """("accepted" | "refused" | "finding", what was said)."""
    started = time.monotonic()
    try:
        with _limits():
            target.read(folder)
        verdict, said = "accepted", ""
    except (UserError, ValueError) as error:
        said = str(error)
        verdict = "refused" if said.strip() and "\n" not in said and target.tells(said, file.name) else "finding"
        said = said if verdict == "refused" else f"{type(error).__name__}: {said!r}{_where(error)}"
    except KeyboardInterrupt:
        raise
    except _TooLong as error:
        verdict, said = "finding", f"more than {MAX_S:.0f} s{_where(error)}"
    except BaseException as error:  # Rust's panics are no Exceptions
        verdict, said = "finding", f"{type(error).__name__}: {str(error)[:300]!r}{_where(error)}"
    if verdict != "finding" and time.monotonic() - started > 2 * MAX_S:  # in C, where no alarm is heard
        verdict, said = "finding", f"{time.monotonic() - started:.1f} s"
    return verdict, said


def _where(error: BaseException) -> str:
    frames = [
        f for f in traceback.extract_tb(error.__traceback__) if "/pipeline/" in f.filename or "/stores/" in f.filename
    ]
    return f" at {'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else ""


def run(
    target: Target, seed: int, first: int, number: int | None, seconds: float, keep: Path | None, at: Any = None
) -> Counts:
    """Inputs first, first + 1, … until there were `number` or the time is over. at: shared, tells which input is tried."""
    counts, until, i = Counts(), time.monotonic() + seconds, first
    with tempfile.TemporaryDirectory() as scratch:
        right, folder = Path(scratch, "right"), Path(scratch, "folder")
        right.mkdir()
        target.make(right)
        target.read(right)  # what is right is taken
        while (number is None or i < first + number) and time.monotonic() < until:
            if at is not None:
                at.value = i
            shutil.copytree(right, folder)
            file = altered(target, folder, seed, i)
            verdict, said = try_input(target, folder, file)
            counts.inputs += 1
            counts.refused += verdict == "refused"
            counts.accepted += verdict == "accepted"
            if verdict == "finding":
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(file, keep / f"{target.name.replace(' ', '_')}-{seed}-{i}-{file.name}")
                counts.findings.append({"seed": seed, "i": i, "said": said})
            shutil.rmtree(folder)
            i += 1
    return counts


def _apart(target: Target, seed: int, first: int, number: int | None, seconds: float, keep: Path) -> Counts:
    """run in processes of its own: one that ends is a finding, and the next goes on behind it."""
    context = multiprocessing.get_context("fork")
    total, until = Counts(), time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and (number is None or number > 0):
        at, receive, send = context.Value("q", first), *context.Pipe(duplex=False)

        def work(
            at: Any = at, send: Any = send, first: int = first, number: int | None = number, left: float = left
        ) -> None:
            send.send(run(target, seed, first, number, left, keep, at))

        process = context.Process(target=work)
        process.start()
        send.close()
        try:
            counts = receive.recv()
        except EOFError:
            counts = None
        process.join()
        if counts is None and process.exitcode and process.exitcode > 0:
            raise RuntimeError(f"the fuzzer failed at {target.name}, input {at.value}")
        if counts:
            total.inputs += counts.inputs
            total.refused += counts.refused
            total.accepted += counts.accepted
            total.findings += counts.findings
            return total
        done = at.value - first + 1
        total.inputs += done
        total.findings.append({"seed": seed, "i": at.value, "said": f"the process ended with {process.exitcode}"})
        first, number = at.value + 1, None if number is None else number - done
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=[t.name for t in TARGETS], help="one alone")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--number", type=int, help="inputs of each target")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/fuzz.json"))
    options = parser.parse_args()
    os.environ["RUST_BACKTRACE"] = "0"
    targets = [t for t in TARGETS if options.target in (None, t.name)]
    found: dict[str, Counts] = {}
    print(f"{'target':18} {'inputs':>8} {'refused':>8} {'accepted':>8} {'findings':>8}", flush=True)
    for target in targets:
        keep = options.out.parent / "fuzz"
        counts = _apart(target, options.seed, options.first, options.number, options.seconds / len(targets), keep)
        found[target.name] = counts
        print(f"{target.name:18} {counts.inputs:8} {counts.refused:8} {counts.accepted:8} {len(counts.findings):8}")
        kinds = {f["said"].rsplit(" at ", 1)[-1]: f for f in reversed(counts.findings)}  # the first of each place
        for finding in list(kinds.values())[::-1][:SHOWN]:
            print(f"    {finding['said'][:400]}")
            print(f"    --target '{target.name}' --seed {finding['seed']} --first {finding['i']} --number 1")
        sys.stdout.flush()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table = {name: {**asdict(counts), "findings": counts.findings[:100]} for name, counts in found.items()}
    whole = {"seconds": options.seconds, "seed": options.seed, "targets": table}
    whole |= {key: sum(getattr(c, key) for c in found.values()) for key in ("inputs", "refused", "accepted")}
    whole["findings"] = sum(len(c.findings) for c in found.values())
    options.out.write_text(json.dumps(whole, indent=2) + "\n")
    sys.exit(1 if whole["findings"] else 0)


if __name__ == "__main__":
    main()
