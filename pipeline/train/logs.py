"""What is logged while dictionaries learn: metrics.jsonl always, TensorBoard and Weights & Biases when asked for."""

import contextlib
import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from pipeline.config import UserError
from pipeline.train.config import TrainConfig
from pipeline.units import Unit
from stores.manifest import commit_bytes

METRICS = "metrics.jsonl"
_END_BYTES = 1 << 16  # of a log, in which there is a whole record


def check(config: TrainConfig) -> None:
    """Raises UserError: what is asked for is not installed."""
    for asked, module in ((config.tensorboard, "tensorboard"), (config.wandb, "wandb")):
        if asked and importlib.util.find_spec(module) is None:
            raise UserError(f"train.{module} needs the package {module}: pip install 'unmix[logs]', or leave it out")


class Log(Protocol):
    """Takes one record after another: "step", "tokens" and metrics."""

    def write(self, record: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


def open_logs(unit: Unit, site: str, config: TrainConfig, after_step: int) -> list[Log]:
    """Those of one dictionary. What was logged after a step is forgotten: it is about to be logged again."""
    found: list[Log] = [_Lines(unit.folder / METRICS, after_step)]
    if config.tensorboard:
        found.append(_TensorBoard(unit.folder, after_step))
    if config.wandb:
        found.append(_Wandb(unit, site, config.wandb))
    return found


def records(file: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl, up to the one that a process died on."""
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return


def last(file: Path) -> dict[str, Any]:
    """The newest record, or an empty one. Reads the end of the file alone."""
    try:
        with file.open("rb") as lines:
            lines.seek(max(0, os.fstat(lines.fileno()).st_size - _END_BYTES))
            end = lines.read()
    except FileNotFoundError:
        return {}
    for line in reversed(end.splitlines()):
        with contextlib.suppress(ValueError):
            if isinstance(found := json.loads(line), dict):
                return found
    return {}


class _Lines:
    """The file is another one from each start on: a process that lost the unit while it stood still writes to the old."""

    def __init__(self, file: Path, after_step: int) -> None:
        kept = [json.dumps(record) + "\n" for record in records(file) if record["step"] <= after_step]
        commit_bytes(file, "".join(kept).encode())
        self.file = file.open("a", encoding="utf-8", buffering=1)

    def write(self, record: dict[str, Any]) -> None:
        self.file.write(json.dumps(record) + "\n")

    def close(self) -> None:
        self.file.close()


class _TensorBoard:
    def __init__(self, folder: Path, after_step: int) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=after_step + 1)

    def write(self, record: dict[str, Any]) -> None:
        for name, value in record.items():
            if name != "step":
                self.writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    """One run per dictionary, called by its key, so that a resumed one goes on in it."""

    def __init__(self, unit: Unit, site: str, project: str) -> None:
        import wandb

        self.run = wandb.init(
            project=project,
            id=unit.key[:32],
            name=f"{site}/{unit.name}",
            group=site,
            config=unit.settings,
            dir=str(unit.folder),
            resume="allow",
            reinit="create_new",
        )

    def write(self, record: dict[str, Any]) -> None:
        self.run.log({k: v for k, v in record.items() if k != "step"}, step=record["step"])

    def close(self) -> None:
        self.run.finish()
