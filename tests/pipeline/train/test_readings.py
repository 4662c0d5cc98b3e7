from pathlib import Path

import pytest
import torch

from pipeline import stopping
from pipeline.train.readings import Readings
from tests.conftest import make_store, planted_rows, unmix

HOOK = "blocks.0.hook_resid_post"


def metrics(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {
        "a": {"mse": torch.tensor(value), "dead": torch.tensor(3)},
        "b": {"mse": torch.tensor(0.1, dtype=torch.float64)},
    }


def test_on_a_cpu_they_are_there_at_once() -> None:
    """It would have caught a metrics.jsonl with another step's numbers, or with rounded ones."""
    readings = Readings("cpu")
    readings.send(10, metrics(1.5))
    assert readings.arrived(10) == [(10, {"a": {"mse": 1.5, "dead": 3.0}, "b": {"mse": 0.1}})]
    assert readings.arrived(20, all_of_them=True) == []


def test_of_a_device_they_are_read_a_step_later_as_they_were() -> None:
    """It would have caught a log that waits for the step that it is of, is of the step after, or comes twice."""
    readings = Readings("cuda:1")
    sent = metrics(1.5)
    readings.send(10, sent)
    sent["a"]["mse"].fill_(7.0)  # the next step's
    assert readings.arrived(10) == []
    assert readings.arrived(11) == [(10, {"a": {"mse": 1.5, "dead": 3.0}, "b": {"mse": 0.1}})]
    assert readings.arrived(12) == []


def test_before_a_checkpoint_all_are_read() -> None:
    """It would have caught a record that a run lacks that stops at its step, and goes on after it."""
    readings = Readings("cuda")
    readings.send(10, metrics(1.5))
    assert [step for step, _ in readings.arrived(10, all_of_them=True)] == [10]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_not_finite_stays_so(device: str) -> None:
    """It would have caught a dictionary that diverges unseen."""
    readings = Readings(device)
    readings.send(1, metrics(float("nan")))
    ((_, values),) = readings.arrived(2)
    assert values["a"]["mse"] != values["a"]["mse"]
    assert values["b"]["mse"] == 0.1


def test_a_run_that_reads_later_and_stops_between_logs_what_one_logs_that_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have caught a record that is lost where a run stops, comes twice where it goes on, or is of another step."""
    make_store(tmp_path / "s.zarr", n_sequences=300, d={HOOK: 16}, rows=lambda h, n, d: planted_rows(n, d))
    (tmp_path / "r.toml").write_text(
        f"store = 's.zarr'\n[extract]\nmodel = 'demo'\nhook_points = ['{HOOK}']\nn_rows = 1\n"
        "[train]\nbatch_size = 64\nn_tokens = 1600\n[train.topk]\nd_sae = 48\nk = 4\nseed = [0, 1]\n"
    )
    run = lambda name, **others: unmix("train", "r.toml", "--name", name, cwd=tmp_path, **others)  # noqa: E731
    run("at-once")
    sent, made = [], Readings.__init__

    def later(self: Readings, device: str) -> None:
        made(self, device)
        self.behind = True

    monkeypatch.setattr(Readings, "__init__", later)
    with monkeypatch.context() as patch:
        send = Readings.send
        patch.setattr(Readings, "send", lambda *given: (sent.append(1), send(*given)))
        patch.setattr(stopping, "asked", lambda: bool(sent))
        assert run("later", check=False).returncode == 75
    run("later")
    logs = [sorted((tmp_path / "runs" / name).rglob("metrics.jsonl")) for name in ("at-once", "later")]
    assert len(logs[0]) == 2
    assert [file.read_text() for file in logs[1]] == [file.read_text() for file in logs[0]]
    assert logs[0][0].read_text().count('"step"') == 3
