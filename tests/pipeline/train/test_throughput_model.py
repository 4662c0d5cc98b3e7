"""The README's table of what several devices can reach is what the model says, and what it says is sent is what is sent."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import pipeline.train
from pipeline.train import ranks as module
from pipeline.train import static
from pipeline.train.contract import SITES, Subject
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.ranks import Parallel, Ranks
from scripts.step_limit import H200, passes
from scripts.throughput_model import DEVICES, STEPS, Step, messages, own_passes, seconds, sent, table
from tests.processes import in_processes


def test_the_readme_has_the_table_and_says_that_it_is_computed() -> None:
    text = (Path(pipeline.train.__file__).parent / "README.md").read_text()
    before, _, _ = text.partition(table())
    assert before != text
    assert "computed, not measured" in before


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("device", DEVICES)
def test_one_device_takes_the_time_of_step_limit(step: Step, device: Any) -> None:
    limit = sum(one.seconds(device) for one in passes(step.d, step.d_sae, step.batch, step.k))
    for by in ("rows", "features"):
        assert seconds(step, device, 1, by) == limit


def test_the_time_of_what_is_sent_is_that_of_its_bytes() -> None:
    """By hand, of 8 devices: a ring sends 7/8 of the gradients in bfloat16, and of their sums; of reconstructions 14/8 in
    float32, and 7 times the own candidates."""
    step = STEPS[0]
    rows, features = (sent(step, 8, by) for by in ("rows", "features"))
    assert rows == pytest.approx(2 * 7 / 8 * 2 * (2 * 768 * 24_576), rel=3e-3)
    assert features == pytest.approx(14 / 8 * 4 * 8192 * 768 + 7 * 2 * 8192 * 32, rel=1e-5)
    for by, n_bytes in (("rows", rows), ("features", features)):
        slow = seconds(step, H200, 8, by, link=1e3)
        alone = sum(one.seconds(H200) for one in own_passes(step, 8, by))
        assert slow == pytest.approx(n_bytes / 1e3 + alone, rel=1e-6)


def counted(ranks: Ranks) -> dict[str, int]:
    """Bytes that this process brings to each kind of collective in one step as on a device, in bfloat16."""
    static.wanted = lambda x: True
    found: Counter = Counter()

    def count(owner: Any, name: str, kind: str, argument: int) -> None:
        real = getattr(owner, name)

        def call(*args: Any, **options: Any) -> Any:
            found[kind] += args[argument].nbytes
            return real(*args, **options)

        setattr(owner, name, call)

    for name, kind, argument in (
        ("all_to_all_single", "all_to_all", 1), ("all_gather", "all_gather", 1), ("all_reduce", "all_reduce", 0),
    ):  # fmt: skip
        count(dist, name, kind, argument)
    count(module, "_all_gather", "all_gather", 1)
    config = TopKConfig(d_sae=SMALL_STEP.d_sae, k=SMALL_STEP.k, aux_k=0, lr=1e-3)
    subject = Subject(TopK, config, SITES["autoencoder"])
    learner = subject.learner(ranks, torch.bfloat16)
    subject.learn(learner, range(1))  # processes tell each other how many rows they have
    found.clear()
    subject.learn(learner, range(1, 2))
    return dict(found)


SMALL_STEP = Step(16, 2**14, 4, 128)  # weights of 1 MiB


@pytest.mark.parametrize(("by", "parallel"), [("rows", "data"), ("features", "features")])
def test_processes_send_what_the_model_says(by: str, parallel: Parallel) -> None:
    """In a step of two processes over gloo, to the byte."""
    expected = {kind: n_bytes for kind, n_bytes in messages(SMALL_STEP, 2, by).items() if n_bytes}
    assert in_processes(2, parallel, counted) == [expected, expected]
