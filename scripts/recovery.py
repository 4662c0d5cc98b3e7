"""What a user would do after a fault, and whether the run is then the one that nothing disturbed."""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.forked import run
from stores import ActivationStore

HOPS = 4  # commands that a user may have to run one after another


def outcome(folder: Path, name: str) -> dict[str, str]:
    """All that must come out the same, by name. Empty where it is not there."""
    root, found = folder / "runs" / name, {}
    try:
        found["store"] = ActivationStore.open(root / "extract" / "activations.zarr").digest
    except Exception as error:
        found["store"] = f"none: {error}"
    for path in sorted(root.glob("train/*/*/sae_weights.safetensors")):
        found[str(path.relative_to(root))] = path.read_bytes().hex()
    for path in sorted(root.glob("score/*/*/scores.json")):
        found[str(path.relative_to(root))] = path.read_text()
    for path in sorted(root.glob("train/*/*/metrics.jsonl")):
        found[str(path.relative_to(root))] = path.read_text()
    return found


@dataclass
class Row:
    """One fault, and what came of it."""

    fault: str
    detail: str
    said: list[str]
    lost: bool = False
    wrong: bool = False
    dead_end: bool = False
    traceback: bool = False
    hops: int = 0


def command_in(said: str, recipe: list[str]) -> list[str] | None:
    """The command that a message names in backticks, as the shell would take it."""
    found = re.findall(r"`((?:unmix|mv) [^`]+)`", said)
    if not found:
        return None
    words = shlex.split(found[-1])
    if words[0] == "unmix" and words[1] in ("extract", "train", "score", "run"):
        words = [words[0], words[1], *recipe, *[w for w in words[2:] if w.startswith("--")]]
    return words


def recover(folder: Path, name: str, row: Row, command: str = "run") -> None:
    """Do what a user would, until the run, or the one stage, is whole or the messages lead nowhere."""
    recipe = ["drill.toml", "--name", name]
    for _ in range(HOPS):
        code, said = run(folder, command, *recipe)
        row.traceback |= "Traceback" in said
        if code == 0:
            code, said = run(folder, "verify", f"runs/{name}")
            row.traceback |= "Traceback" in said
            if code == 0:
                return
        row.said.append(last_line(said))
        row.hops += 1
        words = command_in(said, recipe)
        if words is None or code is None:
            break
        if words[0] == "mv":
            subprocess.run(words, cwd=folder, check=False)
            continue
        code, said = run(folder, *words[1:])
        row.traceback |= "Traceback" in said
        if code:
            row.said.append(last_line(said))
            if (words := command_in(said, recipe)) and words[0] == "unmix":
                run(folder, *words[1:])
    row.dead_end = run(folder, command, *recipe)[0] != 0


def last_line(said: str) -> str:
    """Of what a command said."""
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "(nothing)"
