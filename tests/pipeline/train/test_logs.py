import json
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from pipeline.config import UserError
from pipeline.train import logs, pictures
from pipeline.train.config import TrainConfig
from pipeline.train.pictures import draw
from pipeline.units import Unit


@pytest.fixture
def unit(tmp_path: Path) -> Unit:
    found = Unit("train", "topk-d8", tmp_path / "topk-d8", 1, {"k": 2}, {})
    found.begin()
    return found


def write(opened: list[logs.Log], steps: range) -> None:
    for step in steps:
        for log in opened:
            log.write({"step": step, "tokens": 64 * step, "fvu": 1 / (step + 1), "l0": 2.0, "dead": 0.0})
    for log in opened:
        log.close()


def test_a_resumed_log_forgets_what_comes_again(unit: Unit) -> None:
    write(logs.open_logs(unit, "h", TrainConfig(n_tokens=1), 0), range(10, 60, 10))
    file = unit.folder / logs.METRICS
    with file.open("a") as end:
        end.write('{"step": 60, "tok')  # the process died here
    write(logs.open_logs(unit, "h", TrainConfig(n_tokens=1), 30), range(40, 60, 10))
    assert [r["step"] for r in logs.records(file)] == [10, 20, 30, 40, 50]
    assert logs.last(file)["step"] == 50


def test_tensorboard_shows_each_step_once(unit: Unit) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = TrainConfig(n_tokens=1, tensorboard=True)
    write(logs.open_logs(unit, "h", config, 0), range(10, 60, 10))
    write(logs.open_logs(unit, "h", config, 30), range(40, 80, 10))
    found = EventAccumulator(str(unit.folder / "tensorboard")).Reload().Scalars("fvu")
    assert [event.step for event in found] == [10, 20, 30, 40, 50, 60, 70]
    assert found[0].value == pytest.approx(1 / 11)


@pytest.mark.slow
def test_wandb_takes_a_run_per_dictionary(unit: Unit, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    write(logs.open_logs(unit, "h", TrainConfig(n_tokens=1, wandb="unmix"), 0), range(10, 30, 10))
    (file,) = (unit.folder / "wandb").glob("offline-run-*/run-*.wandb")
    assert file.stem.endswith(unit.key[:32])
    assert file.stat().st_size > 0


def test_what_is_not_installed_is_said(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="train.tensorboard needs the package tensorboard"):
        logs.check(TrainConfig(n_tokens=1, tensorboard=True))
    logs.check(TrainConfig(n_tokens=1))


def test_curves_of_those_that_have_any(tmp_path: Path) -> None:
    records = {"rotation": {"l4": 2.0}, "topk": {"fvu": 0.5, "l0": 3.0, "dead": 1.0}}
    for name, record in records.items():
        assert not (tmp_path / "curves.png").exists()
        (tmp_path / name).mkdir()
        (tmp_path / name / logs.METRICS).write_text(
            "".join(json.dumps({"step": s, "tokens": s, **record}) + "\n" for s in (1, 2))
        )
        draw(tmp_path, "h")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_whitened_dictionaries_have_a_panel_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, *_, **__: drawn.append(figure))
    panels = []
    for name, key in (("raw", "fvu"), ("white", "fvu_whitened")):
        (tmp_path / name).mkdir()
        record = {"step": 1, "tokens": 1, key: 0.5, "l0": 3.0, "dead": 1.0}
        (tmp_path / name / logs.METRICS).write_text(json.dumps(record) + "\n")
        draw(tmp_path, "h")
        panels.append({axis.get_title(loc="left"): len(axis.lines) for axis in drawn[-1].axes})
    assert panels == [
        {"FVU": 1, "L0": 1, "dead features": 1},
        {"FVU": 1, "FVU of whitened activations": 1, "L0": 2, "dead features": 2},
    ]
    assert [text.get_text() for text in drawn[-1].legends[0].texts] == ["raw", "white"]
