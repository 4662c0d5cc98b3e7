"""`unmix status` in the terminal: a line per stage, and one per unit."""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipeline.status import Progress

_STYLES = {"done": "green", "running": "bold cyan", "failed": "bold red", "conflict": "bold red", "waiting": "dim"}
_PAUSE_S = 3.0
_LISTED = {"done": 0, "waiting": 12}  # units of a stage, at most


def show(rows: Sequence[Progress], every: bool = False) -> None:
    """What runs or failed, the first of those that wait, and how many there are besides. every: all units."""
    console = Console() if sys.stdout.isatty() else Console(width=400)
    for part in _parts(rows, {} if every else _LISTED):
        console.print(part, "")


def show_again(look: Callable[[], Sequence[Progress]], every: bool = False) -> None:
    """Until ctrl-c. In a terminal in its place, without those that wait."""
    if not sys.stdout.isatty():
        return again(look, lambda rows: show(rows, every))
    listed = {} if every else dict.fromkeys(_LISTED, 0)
    with Live(auto_refresh=False, vertical_overflow="ellipsis") as live:
        again(look, lambda rows: live.update(Group(*_parts(rows, listed)), refresh=True))


def again(look: Callable[[], Sequence[Progress]], tell: Callable[[Sequence[Progress]], None]) -> None:
    """Until ctrl-c, in pauses that are longer than the looks."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            started = time.monotonic()
            tell(look())
            sys.stdout.flush()
            time.sleep(max(_PAUSE_S, 4 * (time.monotonic() - started)))


def _parts(rows: Sequence[Progress], listed: Mapping[str, int]) -> list[Table]:
    """listed: state → how many units of a stage are shown at most."""
    stages = {stage: [row for row in rows if row.stage == stage] for stage in dict.fromkeys(row.stage for row in rows)}
    return [part for part in (_summary(stages), _units(stages, listed)) if part.row_count]


def _summary(stages: dict[str, list[Progress]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    states = [state for state in _STYLES if state != "conflict" or any(_of(rows, state) for rows in stages.values())]
    for column in ("stage", *states, "all", "ETA"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, rows in stages.items():
        counts = [(state, len(_of(rows, state))) for state in states]
        cells = [Text(str(n), _STYLES[state]) if n else Text("·", "dim") for state, n in counts]
        table.add_row(stage, *cells, str(len(rows)), _duration(eta_s(rows)))
    return table


def eta_s(rows: Sequence[Progress]) -> float | None:
    """Until the units of a stage are done that run or wait, if those that wait are as large as the others and as many run
    at a time as now."""
    rate = sum(row.rate / row.of for row in rows if row.rate and row.of)  # units a second
    left = sum(1 - row.done / row.of if row.of else 1.0 for row in rows if row.state in ("running", "waiting"))
    return left / rate if rate else None


def _of(rows: Sequence[Progress], state: str) -> list[Progress]:
    return [row for row in rows if row.state == state]


def _units(stages: dict[str, list[Progress]], listed: Mapping[str, int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "unit", "state", "done / of", "rate", "ETA"):
        table.add_column(column, justify="right" if column in ("done / of", "rate", "ETA") else "left", no_wrap=True)
    table.add_column(
        "who, or why", overflow="fold"
    )  # several lines in a narrow terminal, so that the others stay whole
    for stage, rows in stages.items():
        seen = Counter[str]()
        for row in rows:
            seen[row.state] += 1
            if seen[row.state] > listed.get(row.state, len(rows)):
                continue
            rate = f"{row.rate:.3g} {row.counted}/s" if row.rate else ""
            cells = (row.unit, f"{row.done:,} / {row.of:,} {row.counted}", rate, _duration(row.eta_s), _said(row))
            unit, done, *others = map(Text, cells)  # a text in brackets is no markup
            table.add_row(stage, unit, Text(row.state, _STYLES[row.state]), done, *others)
        for state, most in listed.items():
            if most and (n := seen[state] - most) > 0:
                table.add_row(stage, Text(f"{n:,} more", "dim"), Text(state, _STYLES[state]))
    return table


def _said(row: Progress) -> str:
    """Who works on it; why it failed, and where more is told."""
    who = [f"{w.host} {w.pid}" + (f", job {w.job}" if w.job else "") for w in row.workers]
    log = [f"see {row.failure.log}"] if row.failure and row.failure.log else []
    return "; ".join([*who, *([row.error] if row.error else []), *log])


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if size > 60 else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
