import pytest
import torch

from pipeline.train.contract import silence
from pipeline.train.learner import FamilyLearner
from pipeline.train.stack import Stack
from tests.conftest import source_of
from tests.pipeline.train.test_families import CASES, planted


def states_of(learners: list[FamilyLearner]) -> list[dict[str, torch.Tensor]]:
    return [{k: v.clone() for k, v in own.state().items()} for own in learners]


def some(family, config, x: torch.Tensor, dtype: torch.dtype = torch.float32) -> list[FamilyLearner]:
    """Three of one shape: other seeds, and another sparsity coefficient where there is one."""
    made = []
    for seed in range(3):
        update = {"seed": seed} | {
            k: 0.1 + 0.2 * seed for k in type(config).model_fields if k.endswith("1_coefficient")
        }
        made.append(FamilyLearner(family, config.model_copy(update=update), source_of(x), "cpu"))
        made[-1].dtype = dtype
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("family", "config"), CASES)
def test_in_a_stack_each_learns_what_it_learns_alone(family, config, dtype) -> None:
    """To the last bit: who is in a stack depends on who else is left when a run is resumed."""
    x, _ = planted(2048, 13, 32, 2)  # 13: no multiple of what a processor adds at once
    clip = 1.0 if dtype == torch.bfloat16 else None
    config = config.model_copy(update={"grad_clip": clip, "dead_after_tokens": 300, "anneal_from": 0.2})
    alone, together = some(family, config, x, dtype), some(family, config, x, dtype)
    for own in [*alone, *together]:  # some are dead from the start, in one of them
        silence(own.model, 5 if own.config.seed == 1 else 0)
    assert len({own.shape for own in together}) == 1
    for step in range(4):  # a part of them has learned before
        for own in [*alone, *together]:
            own.step(x[step * 128 :][:128], step, 20)
    stack = Stack(together)
    for step in range(4, 20):
        batch = x[(step * 128) % 2048 :][:128]
        found = stack.step(batch, step, 20)
        for own, parts in zip(alone, found, strict=True):
            for name, value in own.step(batch, step, 20).items():
                assert torch.equal(parts[name].float(), value.float()), name
    for own, other in zip(states_of(alone), states_of(together), strict=True):
        assert own.keys() == other.keys()
        for name, tensor in own.items():
            assert torch.equal(other[name], tensor), name


@pytest.mark.parametrize(("family", "config"), CASES)
def test_in_a_stack_each_can_have_its_own_rows(family, config) -> None:
    x = [planted(512, 16, 32, 2)[0] * (1 + i) for i in range(3)]  # each with a scale of its own
    alone, together = ([FamilyLearner(family, config, source_of(own), "cpu") for own in x] for _ in range(2))
    stack = Stack(together)
    for step in range(4):
        rows = slice(step * 128, (step + 1) * 128)
        stack.step(torch.stack([own[rows] for own in x]), step, 20)
        for learner, own in zip(alone, x, strict=True):
            learner.step(own[rows], step, 20)
    for own, other in zip(states_of(alone), states_of(together), strict=True):
        for name, tensor in own.items():
            assert torch.allclose(other[name].float(), tensor.float(), atol=1e-5), name


def test_one_that_leaves_the_stack_keeps_what_it_has_learned() -> None:
    x, _ = planted(2048, 16, 32, 2)
    family, config = CASES[0].values
    made = some(family, config, x)
    stack = Stack(made)
    stack.step(x[:128], 0, 20)
    rest = Stack(made[1:])
    before = states_of(made)
    rest.step(x[128:256], 1, 20)
    after = states_of(made)
    assert all(torch.equal(before[0][k], v) for k, v in after[0].items())
    assert not torch.equal(before[1]["model.W_dec"], after[1]["model.W_dec"])
    assert after[1]["adam.W_dec.step"] == 2
