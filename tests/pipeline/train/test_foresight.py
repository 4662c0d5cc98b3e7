import pytest
import torch

from pipeline.train import contract, static
from pipeline.train import learner as learning
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.foresight import _STEPS, Foresight
from pipeline.train.learner import FamilyLearner
from pipeline.train.products import Products
from pipeline.train.ranks import Parallel, Ranks
from pipeline.train.threads import in_threads
from tests.conftest import planted_rows, source_of


@pytest.mark.parametrize(
    "n_tokens", [(7,) * 300, tuple(3 + 40 * (i % 5 == 0) for i in range(300))], ids=["even", "uneven"]
)
def test_no_dead_feature_is_overlooked(n_tokens: tuple[int, ...]) -> None:
    """It would have caught a silence that is not as long as it has become since it was read."""
    generator, foresight = torch.Generator().manual_seed(0), Foresight()
    silence, dead_after, told, found = torch.zeros(6, dtype=torch.long), 200, [], []
    for step, n in enumerate(n_tokens):
        told.append(foresight.any_dead(dead_after))
        found.append(bool((silence > dead_after).any()))
        quiet = step // 60 % 2  # for a time one feature hardly fires
        fired = torch.rand(6, generator=generator) < torch.tensor([0.4] * 5 + [0.02 if quiet else 0.4])
        silence = torch.where(fired, 0, silence + n)
        foresight.follow(silence.max(), n)
    assert any(found)
    assert all(one >= other for one, other in zip(told, found, strict=True))
    assert not all(told)


def test_without_dead_features_a_device_does_nothing_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught an auxiliary loss at each step of a device, where a look would have spared it, and one that is
    left out when a state is loaded that has dead ones."""
    monkeypatch.setattr(static, "wanted", lambda x: True)
    monkeypatch.setattr(learning, "SMALL", 0)
    n_calls, among = [], Products.encode_among
    monkeypatch.setattr(Products, "encode_among", lambda *given: n_calls.append(1) or among(*given))
    x = torch.from_numpy(planted_rows(1024, 24))
    own = FamilyLearner(TopK, TopKConfig(d_sae=400, k=4, dead_after_tokens=10**6), source_of(x), "cpu")

    def steps(n: int) -> int:
        n_calls.clear()
        for step in range(n):
            own.step(x[:64], step, 100)
        return len(n_calls)

    assert steps(10) == _STEPS
    assert steps(10) == 0
    state = {name: tensor.clone() for name, tensor in own.state().items()}
    del state["foresight"]  # which would say that none of those that were there is dead
    state["model.tokens_since_fired"][0] = 10**7
    state["model.W_enc"][0] = state["model.b_enc"][0] = 0.0
    own.load_state(state)
    assert steps(10) == 10


def test_what_follows_is_the_same_whether_or_not_the_host_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught an auxiliary loss of no dead features that leaves a bit behind: a resumed run knows less."""
    monkeypatch.setattr(static, "wanted", lambda x: True)
    monkeypatch.setattr(learning, "SMALL", 0)
    x = torch.from_numpy(planted_rows(1024, 24))
    states = []
    for forgetful in (False, True):
        own = FamilyLearner(TopK, TopKConfig(d_sae=400, k=4, dead_after_tokens=10**6), source_of(x), "cpu")
        for step in range(8):
            if forgetful:
                own.foresight = Foresight()
            own.step(x[step * 64 :][:64], step, 100)
        states.append(own.state())
    for name in states[0].keys() - {"foresight"}:
        assert torch.equal(states[1][name], states[0][name]), name


def test_a_run_that_goes_on_is_told_what_an_undisturbed_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught a resumed run that computes for dead features where the other does not: on a device other kernels
    make its sums, with other bits."""
    monkeypatch.setattr(static, "wanted", lambda x: True)
    monkeypatch.setattr(learning, "SMALL", 0)
    x = torch.from_numpy(planted_rows(1024, 24))
    ask, told = FamilyLearner._any_dead, {False: [], True: []}
    for interrupted, found in told.items():
        monkeypatch.setattr(FamilyLearner, "_any_dead", lambda own, into=found: into.append(ask(own)) or into[-1])
        own = FamilyLearner(TopK, TopKConfig(d_sae=400, k=4, dead_after_tokens=500), source_of(x), "cpu")
        for step in range(16):
            if step == 9 and interrupted:
                state = {name: tensor.clone() for name, tensor in own.state().items()}
                own = FamilyLearner(TopK, own.config, own.source, "cpu")
                own.load_state(state)
            own.step(x[step * 64 % 1024 :][:64], step, 100)
    assert told[True] == told[False]
    assert len(set(told[False][4:])) == 2  # none is dead at first, and some are later


@pytest.mark.parametrize("parallel", ["data", "features"])
def test_what_is_under_way_does_not_grow_with_the_steps(monkeypatch: pytest.MonkeyPatch, parallel: Parallel) -> None:
    """It would have caught a copy of each step that nobody reads, where processes divide features."""
    monkeypatch.setattr(static, "wanted", lambda x: True)
    subject = contract.Subject(TopK, TopKConfig(d_sae=48, k=4), contract.SITES["autoencoder"])

    def under_way(ranks: Ranks) -> int:
        own = subject.learner(ranks)
        subject.learn(own, range(12))
        return len(own.foresight._under_way)

    assert max(in_threads(2, parallel, under_way)) <= _STEPS


def test_a_process_knows_of_dead_features_that_another_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught a process that goes by its own features: it would not be there when the other asks for the
    candidates of the dead. Silence of 128 tokens a step is known four steps later."""
    monkeypatch.setattr(static, "wanted", lambda x: True)
    subject = contract.Subject(TopK, TopKConfig(d_sae=48, k=4, dead_after_tokens=700), contract.SITES["autoencoder"])

    def told(ranks: Ranks, n_silent: int) -> list[bool]:
        own, found = subject.learner(ranks), []
        if ranks.rank == 1:
            contract.silence(own.model, n_silent)
        ask = own._any_dead
        monkeypatch.setattr(own, "_any_dead", lambda: found.append(ask()) or found[-1])
        subject.learn(own, range(9))
        return found

    assert in_threads(2, "features", lambda ranks: told(ranks, 0)) == [[True] * 4 + [False] * 5] * 2
    assert in_threads(2, "features", lambda ranks: told(ranks, 5)) == [[True] * 4 + [False] * 2 + [True] * 3] * 2
