"""Steps that are captured and replayed learn what steps that are made as they come learn."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.train import captured, fused, static
from pipeline.train import learner as learning
from pipeline.train.families.base import Family
from pipeline.train.families.relu_l1 import ReluL1
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.stack import Stack
from stores.site import Site
from tests.conftest import planted_rows, source_of
from tests.pipeline.train.replayed import Replayed

FAMILIES = {name: method.family for name, method in METHODS.items() if method.family is not None}
D, BATCH, N_STEPS = 16, 32, 12
X = torch.from_numpy(planted_rows(BATCH * N_STEPS, D))
# Each schedule moves at steps that are replayed.
SCHEDULED: dict[str, dict[str, Any]] = {
    "topk": {"k_start": 6, "k_anneal": 0.5, "decay": 0.9, "aux_k": 8},
    "relu_l1": {"penalty_warmup": 0.3, "l0_target": 5.0},
    "gated": {"grad_clip": 5.0, "penalty_warmup": 0.7, "decay_shape": "cosine", "decay": 0.6},
    "p_anneal": {"penalty_warmup": 0.2, "n_updates": 2, "anneal_from": 0.2, "l0_target": 5.0},
    "jumprelu": {"penalty_warmup": 0.3, "l0_target": 5.0, "decay": 0.7},
}


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Replayed:
    """One on which steps are sent as to CUDA, and captured where `device_of` says so."""
    monkeypatch.setattr(static, "wanted", lambda x: True)
    monkeypatch.setattr(learning, "SMALL", 0)
    monkeypatch.setattr(captured, "N_BEFORE", 1)
    found = Replayed()
    monkeypatch.setattr(captured, "device_of", lambda x: found)
    return found


def learner(name: str | type[Family], where: str = "cpu", **settings: Any) -> FamilyLearner:
    family = FAMILIES[name] if isinstance(name, str) else name
    given: dict[str, Any] = {"d_sae": 48, "lr": 1e-2, "dead_after_tokens": 100, "decay": 0.7} | settings
    given |= {"k": 3} if "k" in family.Config.model_fields else {}
    given |= SCHEDULED.get(name, {}) if isinstance(name, str) else {}
    source = source_of(X)
    if given.get("skip"):
        source = replace(source, site=Site(source.site.reads, ("blocks.0.hook_mlp_out",)))
    return FamilyLearner(family, family.Config(**given), source, where)


def learn(own: Any, steps: range = range(N_STEPS), y: bool = False) -> list[Any]:
    batches = X.to(own.first.model.W_dec.device if isinstance(own, Stack) else own.model.W_dec.device).split(BATCH)
    return [own.step(batches[step], step, N_STEPS, batches[-step].clone() if y else None) for step in steps]


def uncaptured(own: Any) -> Any:
    own.captured._left = True
    return own


def assert_same(found: FamilyLearner, expected: FamilyLearner) -> None:
    for name, tensor in expected.state().items():
        assert torch.equal(found.state()[name], tensor), name


@pytest.mark.parametrize("name", FAMILIES)
def test_replayed_steps_are_the_steps(name: str, device: Replayed) -> None:
    """It would have caught every number of the host that changes with the step, and every tensor that is not where it was: a
    rate, a k, a p, a coefficient, a count, a batch."""
    one, other = learner(name), uncaptured(learner(name))
    found, expected = learn(one), learn(other)
    assert device.n_replayed >= N_STEPS // 3
    assert fused.holds(one.model) == (name not in ("gated", "jumprelu"))  # clipped; thresholds are constrained
    assert_same(one, other)
    for ours, theirs in zip(found, expected, strict=True):
        assert {k: float(v) for k, v in ours.items()} == {k: float(v) for k, v in theirs.items()}


@pytest.mark.parametrize("name", ["topk", "p_anneal", "jumprelu"])
def test_a_stacks_replayed_steps_are_the_steps(name: str, device: Replayed, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught a gradient or a moment of the stack that is elsewhere at the next step."""
    monkeypatch.setattr(learning, "SMALL", 2**15)
    stacks = [[learner(name, seed=seed) for seed in range(2)] for _ in range(2)]
    learn(Stack(stacks[0]))
    assert device.n_replayed >= N_STEPS // 3
    learn(uncaptured(Stack(stacks[1])))
    for one, other in zip(*stacks, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("name", ["topk", "relu_l1"])
def test_a_skip_transcoders_replayed_steps_are_the_steps(name: str, device: Replayed) -> None:
    """It would have caught targets that stay those of the capture."""
    one, other = learner(name, skip=True), uncaptured(learner(name, skip=True))
    learn(one, y=True), learn(other, y=True)
    assert device.n_replayed >= N_STEPS // 3
    assert_same(one, other)


def test_resampling_between_replays_and_a_loaded_state_are_seen(device: Replayed) -> None:
    """It would have caught new directions that the next replay undoes, and a graph of the moments before a state was loaded."""
    settings: dict[str, Any] = {"resample_every_tokens": 4 * BATCH, "dead_after_tokens": 2 * BATCH, "aux_k": 0}
    settings |= {"decay": 0.1}
    one, other, half = (learner("batch_topk", **settings) for _ in range(3))
    learn(one), learn(uncaptured(other))
    assert_same(one, other)
    learn(half, range(7))
    resumed = learner("batch_topk", **settings)
    learn(resumed, range(2, 6))
    resumed.load_state({name: tensor.clone() for name, tensor in half.state().items()})
    before = device.n_captured
    learn(resumed, range(7, N_STEPS))
    assert device.n_captured > before
    assert_same(resumed, one)


def test_learners_of_a_site_read_a_batch_in_one_place(device: Replayed) -> None:
    """It would have caught a copy of the batch for each learner, and a learner that reads the batch before."""
    pairs = [(learner("relu_l1", seed=seed), uncaptured(learner("relu_l1", seed=seed))) for seed in range(2)]
    for step in range(N_STEPS):
        for own in (own for pair in pairs for own in pair):
            learn(own, range(step, step + 1))
    assert len(device._places) == 1
    for one, other in pairs:
        assert_same(one, other)


class Counting(ReluL1):
    """Its loss hangs on a number of the host that nobody knows of."""

    n = 0

    def loss(self, x: Tensor, y: Tensor, now: Any) -> Any:
        type(self).n += 1
        found = super().loss(x, y, now)
        return replace(found, total=found.total * self.n)


class Looking(ReluL1):
    def loss(self, x: Tensor, y: Tensor, now: Any) -> Any:
        found = super().loss(x, y, now)
        return found if float(found.parts["mse"].detach()) > 0 else replace(found, total=0 * found.total)


class Stepping(ReluL1):
    def loss(self, x: Tensor, y: Tensor, now: Any) -> Any:
        found = super().loss(x, y, now)
        return replace(found, total=found.total / (1 + now.step))


def test_a_number_of_the_host_is_found(device: Replayed) -> None:
    """What is tested above can fail."""
    one, other = learner(Counting), uncaptured(learner(Counting))
    learn(one)
    Counting.n = 0
    learn(other)
    with pytest.raises(AssertionError, match=r"model\."):
        assert_same(one, other)


@pytest.mark.parametrize(
    ("family", "told"), [(Looking, "not permitted when stream is capturing"), (Stepping, "Family.schedule")]
)
def test_what_cannot_be_captured_is_told_once_and_learned_as_it_comes(
    family: type[Family], told: str, device: Replayed, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would have caught a family of one's own that trains wrong, or not at all, because its step cannot be captured."""
    one, other = learner(family), uncaptured(learner(family))
    learn(one)
    lines = "".join(capsys.readouterr()).splitlines()
    learn(other)
    assert_same(one, other)
    assert device.n_replayed == 0
    assert len(lines) == 1
    assert lines[0].startswith(f"{family.__name__} trains without CUDA graphs, its step cannot be captured: ")
    assert told in lines[0]


def test_a_step_that_waits_for_the_device_is_not_captured(
    device: Replayed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would have caught captures that CUDA breaks off, after which PyTorch's memory is not what it was."""
    monkeypatch.setattr(device, "aside", lambda work, watched: (work(), watched))
    one, other = learner("topk"), uncaptured(learner("topk"))
    learn(one), learn(other)
    assert device.n_captured == 0
    assert_same(one, other)
    assert "the host waits for a value of the device" in "".join(capsys.readouterr())


def test_that_the_host_waits_is_seen_by_what_pytorch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught a mode that stays, and another warning taken for a wait."""
    modes: list[Any] = [0]
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: modes[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)

    def work(message: str | None) -> captured.Parts:
        assert modes[-1] == "warn"
        if message is None:
            raise OSError("full")
        warnings.warn(message, stacklevel=1)
        return {}

    assert captured.waits_of(lambda: work("called a synchronizing CUDA operation")) == ({}, True)
    assert captured.waits_of(lambda: work("deprecated")) == ({}, False)
    with pytest.raises(OSError, match="full"):
        captured.waits_of(lambda: work(None))
    assert modes[-1] == 0


class BrokenOff:
    """A capture that CUDA has broken off, by an operation that it does not permit."""

    def capture_begin(self, **options: Any) -> None:
        assert options["capture_error_mode"] == "thread_local"

    def capture_end(self) -> None:
        raise RuntimeError("operation failed due to a previous error during capture")


def test_a_capture_that_cuda_breaks_off_leaves_the_stream_and_the_memory_as_they_were(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would have caught training that goes on in the stream of a failed capture, memory that is never given back, and the
    second error told in the place of the first."""
    monkeypatch.setattr(static, "wanted", lambda x: True)
    monkeypatch.setattr(captured, "N_BEFORE", 0)
    streams, given_back = ["current"], []

    @contextlib.contextmanager
    def stream(_: Any) -> Iterator[None]:
        streams.append("aside")
        try:
            yield
        finally:
            streams.pop()

    for name, value in {
        "Stream": lambda device: "aside", "stream": stream, "graph_pool_handle": lambda: (0, 1), "CUDAGraph": BrokenOff,
        "synchronize": lambda device: None, "empty_cache": lambda: None, "current_device": lambda: 0,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *given: given_back.append(given), raising=False)
    cuda = captured.Cuda(torch.device("cpu"))
    monkeypatch.setattr(captured, "device_of", lambda x: cuda)
    own, n = captured.Captured("It"), []

    def work(x: Tensor, y: Tensor | None, now: Any) -> captured.Parts:
        n.append(streams[-1])
        if streams[-1] == "aside":
            raise RuntimeError("operation not permitted when stream is capturing")
        return {"mse": x.sum()}

    now = learner("relu_l1").model.now(0, 1, False)
    assert own.step(work, torch.ones(2, 2), None, now)["mse"] == own.step(work, torch.ones(2, 2), None, now)["mse"] == 4
    assert n == ["aside", "current", "current"]
    assert given_back == [(0, (0, 1))]
    assert "cannot be captured: operation not permitted when stream is capturing" in "".join(capsys.readouterr())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("stacked", [False, True], ids=["alone", "stacked"])
@pytest.mark.parametrize("name", FAMILIES)
def test_on_a_gpu_captured_steps_are_the_steps(name: str, stacked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a state is loaded in the middle. Sums of atomic additions have other last bits each time."""
    monkeypatch.setattr(learning, "SMALL", 2**15 if stacked else 0)
    monkeypatch.setattr(captured, "N_BEFORE", 1)

    def made() -> tuple[Any, list[FamilyLearner]]:
        own = [learner(name, "cuda", seed=seed) for seed in range(1 + stacked)]
        return (Stack(own) if stacked else own[0]), own

    (one, found), (other, expected) = made(), made()
    learn(one), learn(uncaptured(other))
    assert one.captured.graphs
    again = [learner(name, "cuda", seed=seed) for seed in range(1 + stacked)]
    half, states = made()
    learn(half, range(6))
    for own, own_half in zip(again, states, strict=True):
        own.load_state({key: tensor.clone() for key, tensor in own_half.state().items()})
    resumed = Stack(again) if stacked else again[0]
    learn(resumed, range(6, N_STEPS))
    assert resumed.captured.graphs
    for learners in (found, again):
        for ours, theirs in zip(learners, expected, strict=True):
            for key, tensor in theirs.state().items():
                torch.testing.assert_close(ours.state()[key], tensor, rtol=1e-3, atol=1e-4, msg=key)
