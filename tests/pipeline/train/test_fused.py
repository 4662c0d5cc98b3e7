"""The step in one pass over each matrix, on CPU tensors, by the operators' forms of a CPU. That every family learns by it what
it learns by the ordinary step is in test_static.py."""

from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.train import fused, static
from pipeline.train import learner as learning
from pipeline.train.contract import SITES, Subject
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from tests.pipeline.train.conftest import operations

N_STEPS = 12


@pytest.fixture(autouse=True)
def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "SMALL", 0)
    monkeypatch.setattr(static, "wanted", lambda x: True)


def subject(name: str = "topk", site: str = "autoencoder", **settings: Any) -> Subject:
    family = METHODS[name].family
    assert family is not None
    k = {"k": 4} if "k" in family.Config.model_fields else {}
    return Subject(family, family.Config.model_validate({"d_sae": 48, "lr": 1e-2} | k | settings), SITES[site])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (subject(), True),
        (subject(grad_clip=1.0), False),
        (subject(frozen="decoder"), False),
        (subject(frozen="encoder"), False),
        (subject("jumprelu"), False),
        (subject("gated", "transcoder", skip=True), True),
        (subject(site="crosscoder"), False),
        (subject("relu_l1", "crosscoder"), True),
    ],
    ids=lambda own: (
        repr(own) if isinstance(own, bool) else " ".join([own.family.__name__, *sorted(own.config.model_fields_set)])
    ),
)
def test_what_it_does_not_hold_for_takes_the_ordinary_step(
    given: Subject, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have caught gradients that are not clipped, a frozen weight that moves, thresholds below 0, a crosscoder's
    rows with the length of the whole at 1; both steps are in the same of PyTorch's operators."""
    own = given.learner()
    assert fused.holds(own.model) == expected
    names = operations(lambda: given.learn(own, range(1)))
    assert any("update" in name for name in names) == expected
    monkeypatch.setattr(fused, "LARGEST_D", 15)
    assert not fused.holds(own.model)
    monkeypatch.undo()
    assert not fused.holds(own.model)


def test_a_small_dictionary_learns_as_in_a_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught bits that depend on what a dictionary is trained with."""
    monkeypatch.setattr(learning, "SMALL", 2**15)
    assert not fused.holds(subject().learner().model)


@pytest.mark.parametrize("name", ["topk", "relu_l1"])
def test_a_checkpoint_goes_from_a_cpu_to_a_device_and_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught another layout of Adam's state, a count of steps that only one of the two keeps, and moments that
    begin anew."""
    own = subject(name)
    expected = by_turns(own, [False] * 4, monkeypatch)
    for devices in ([False, True, False, True], [True, False, True, False]):
        state = by_turns(own, devices, monkeypatch)
        state.pop("foresight", None)  # what only a device has, for its next steps
        assert {key: (t.shape, t.dtype) for key, t in state.items()} == {
            key: (t.shape, t.dtype) for key, t in expected.items()
        }
        for key, tensor in state.items():
            torch.testing.assert_close(tensor.float(), expected[key].float(), rtol=1e-3, atol=1e-4, msg=key)


def by_turns(own: Subject, devices: list[bool], monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The state after a few steps on each, by learners that know of each other's the state alone."""
    state: dict[str, Tensor] = {}
    for turn, on_device in enumerate(devices):
        monkeypatch.setattr(static, "wanted", lambda x, own=on_device: own)
        learner = own.learner()
        if state:
            learner.load_state(state)
        own.learn(learner, range(turn * 3, (turn + 1) * 3))
        state = {key: tensor.clone() for key, tensor in learner.state().items()}
    return state


def test_only_a_step_leaves_gradients_to_itself() -> None:
    """It would have caught a gradient that is lost for who asks for one, and one of a step that failed which is added to the
    next step's."""
    own = subject(aux_k=0)
    one, other = own.learner(), own.learner()
    x = one.model.scaled(own.sides()[0][:64])

    def backward(learner: FamilyLearner) -> None:
        learner.optimiser.zero_grad()
        learner.model(x, x, learner.model.now(0, N_STEPS, False))[0].backward()

    backward(one)
    assert all(parameter.grad is not None for parameter in one.model.parameters())
    with other.model.products.deferred.here(True):
        backward(other)
    assert [name for name, p in other.model.named_parameters() if p.grad is None] == ["W_dec", "W_enc"]
    own.learn(one, range(1))
    own.learn(other, range(1))
    assert all(torch.equal(*pair) for pair in zip(one.state().values(), other.state().values(), strict=True))


@pytest.mark.parametrize("aux_k", [0, 8])
def test_only_a_gradient_of_one_product_is_not_written(aux_k: int) -> None:
    """It would have caught an auxiliary loss whose gradient is left out, and gradients that are written without need."""
    given = subject(aux_k=aux_k)
    names = operations(
        lambda: given.learn(given.learner(), range(1))
    )  # at its first steps a device takes some for dead
    assert names.count("unmix.sparse_update") == (0 if aux_k else 2)
    assert names.count("unmix.update") == (2 if aux_k else 0)
