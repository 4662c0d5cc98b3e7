"""The whole training step on the meta device, which has no values to look at and refuses other devices' tensors."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.train import learner as learning
from pipeline.train import static
from pipeline.train.families.base import Family
from pipeline.train.families.topk import TopK
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.ranks import Parallel, Ranks
from pipeline.train.source import Source
from pipeline.train.stack import Stack
from stores.site import Site
from tests.conftest import planted_rows, source_of
from tests.pipeline.train.conftest import operations

FAMILIES = {name: method.family for name, method in METHODS.items() if method.family is not None}
D, D_SAE, BATCH = 32, 2048, 64
X = torch.from_numpy(planted_rows(256, D))


pytestmark = pytest.mark.usefixtures("adam_on_meta")


def learner(family: type[Family], source: Source | None = None, **settings: Any) -> FamilyLearner:
    given: dict[str, Any] = {"d_sae": D_SAE, "dead_after_tokens": 1} | settings
    given |= {"k": 8} if "k" in family.Config.model_fields else {}
    return FamilyLearner(family, family.Config(**given), source or source_of(X), "meta")


class OnThisDevice(TorchDispatchMode):
    """Refuses another device's tensors: a copy from the host is one that it waits for. Numbers, which torch.vmap makes tensors
    of, go to a kernel by value; to torch.where's they are copied."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, made)) if isinstance(t, Tensor)]
        elsewhere = [t for t in tensors if t.device.type != "meta"]
        copied = func.overloadpacket in (torch.ops.aten._to_copy, torch.ops.aten.copy_) and len(elsewhere) < len(
            tensors
        )
        copied |= func.overloadpacket is torch.ops.aten.where
        if (copied and elsewhere) or any(t.ndim for t in elsewhere):
            raise RuntimeError(f"{func} of another device's tensor")
        return made


@dataclass(frozen=True)
class Alike(Ranks):
    """Ranks of which the others bring what this one brings, on whatever device. calls: how many collectives of each kind."""

    calls: Counter = field(default_factory=Counter)

    def reduced(self, x: Tensor, by: Literal["sum", "min"]) -> Tensor:
        self.calls[by] += 1
        return x.mul_(self.size) if by == "sum" else x

    def started(self, x: Tensor) -> Callable[[], object]:
        self.reduced(x, "sum")
        return lambda: None

    def exchanged(self, x: Tensor) -> tuple[Tensor, Callable[[], object]]:
        self.calls["exchanged"] += 1
        return x.clone(), lambda: None

    def shared(self, x: Tensor) -> tuple[Tensor, Callable[[], object]]:
        self.calls["shared"] += 1
        return torch.cat([x] * self.size), lambda: None

    def each(self, x: Tensor) -> list[Tensor]:
        self.calls["each"] += 1
        return [x.clone() for _ in range(self.size)]


def learn(own: FamilyLearner | Stack, n: int = 2, **others: Tensor) -> list[str]:
    """Returns the names of the operators of the last step."""
    x, names = torch.empty(BATCH, D, device="meta"), []
    for step in range(n):
        with OnThisDevice():
            names = operations(lambda step=step: own.step(x, step, 20, **others))
    return names


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("small", [0, learning.SMALL], ids=["sparse", "dense"])
def test_a_step_looks_at_no_value(name: str, small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught every wait of a step on a device: float(tensor), bool(tensor), nonzero, a boolean index, bincount,
    repeat_interleave of as many as a tensor says; and every tensor made on the CPU by mistake."""
    monkeypatch.setattr(learning, "SMALL", small)
    own = learner(FAMILIES[name], d_sae=D_SAE if not small else 64, grad_clip=1.0)
    assert own.model.products.dense == bool(small)
    learn(own)
    assert own.optimiser.state[own.model.W_dec]["step"].device.type == "meta"


DIVIDED = [
    (name, parallel)
    for name, family in FAMILIES.items()
    for parallel in ("data", "features")
    if parallel == "data" or family.divisible
]


@pytest.mark.parametrize(("name", "parallel"), DIVIDED)
def test_a_step_of_several_processes_looks_at_no_value(
    name: str, parallel: Parallel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have caught lengths that processes tell each other on the device, a batch's selection that counts, a number
    of rows that is asked of a device, and a question whether any feature is dead."""
    monkeypatch.setattr(learning, "SMALL", 0)
    ranks = Alike(1, 3, parallel)
    own = learner(FAMILIES[name], replace(source_of(X), ranks=ranks), grad_clip=1.0)
    assert len(own.model.W_dec) == (D_SAE if parallel == "data" else 683)
    learn(own)


@pytest.mark.parametrize(
    ("name", "parallel", "expected"),
    [
        ("topk", "data", {"sum": 1}),
        ("batch_topk", "data", {"each": 1, "min": 1, "sum": 1}),  # what is selected, of that the least, gradients
        ("topk", "features", {"each": 3, "sum": 2}),  # candidates and reconstructions, the same of the dead; counts
        ("relu_l1", "features", {"each": 1, "sum": 2}),  # counts; the reconstruction, the penalty
    ],
)
def test_what_processes_exchange_in_a_step(
    name: str, parallel: Parallel, expected: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would have caught a sum of each number that is logged, and of what all processes know."""
    monkeypatch.setattr(learning, "SMALL", 0)
    ranks = Alike(1, 3, parallel)
    own = learner(FAMILIES[name], replace(source_of(X), ranks=ranks))
    learn(own, 1)
    ranks.calls.clear()
    learn(own, 1)
    assert ranks.calls == expected


def test_what_is_sent_in_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both weights, and nothing else. It would have caught biases and what is logged that are rounded, and products in
    float32 whose gradients are."""
    monkeypatch.setattr(learning, "SMALL", 0)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        ranks = Alike(1, 3)
        own = learner(FAMILIES["topk"], replace(source_of(X), ranks=ranks), d_sae=2**14)
        own.dtype = dtype
        learn(own, 1)
        ranks.calls.clear()
        learn(own, 1)
        found.append(dict(ranks.calls))
    assert found == [{"exchanged": 1, "shared": 1, "sum": 1}, {"sum": 1}]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_in_one_pass_looks_at_no_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have caught a family that a device trains with twice the passes, a gradient that is written where the step can
    make it, and an encoder whose maxima are made again."""
    monkeypatch.setattr(learning, "SMALL", 0)
    family = FAMILIES[name]
    by_topk = issubclass(family, TopK)
    own = learner(family, replace(source_of(X), precision="bfloat16"), **({"aux_k": 0} if by_topk else {}))
    names = learn(own)
    count = {name: names.count(f"unmix.{name}") for name in ("encode", "sparse_update", "update")}
    n_matrices = sum(parameter.ndim == 2 for parameter in own.model.parameters())
    in_one_pass = 0 if name == "jumprelu" else n_matrices  # its thresholds have a constraint of their own
    assert count["sparse_update"] == (in_one_pass if by_topk else 0)
    assert count["update"] == in_one_pass - count["sparse_update"]
    assert count["encode"] == (by_topk and name != "abs_topk")
    assert own.optimiser.state[own.model.W_dec].keys() == own.optimiser.state[own.model.b_dec].keys()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_stack_looks_at_no_value(name: str) -> None:
    """It would have caught the stack's own question whether any feature is dead."""
    learn(Stack([learner(FAMILIES[name], d_sae=64, seed=seed) for seed in range(2)]))


@pytest.mark.parametrize("name", ["topk", "relu_l1"])
def test_a_transcoders_step_looks_at_no_value(name: str) -> None:
    """It would have caught a look at what is written, or at the skip connection."""
    source = source_of(X)
    source = replace(source, site=Site(source.site.reads, ("blocks.0.hook_mlp_out",)))
    learn(learner(FAMILIES[name], source, skip=True), y=torch.empty(BATCH, D, device="meta"))


@pytest.mark.parametrize("name", ["topk", "abs_topk", "batch_topk", "matryoshka"])
def test_the_step_of_a_cpu_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested above can fail: the CPU's own step, which looks, does."""
    monkeypatch.setattr(static, "wanted", lambda x: False)
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        learn(learner(FAMILIES[name]))


def test_another_devices_tensor_is_refused() -> None:
    """What is tested above can fail: a buffer that was left on the CPU is found."""
    own = learner(FAMILIES["topk"])
    own.model.tokens_since_fired = torch.zeros(D_SAE, dtype=torch.long)
    with pytest.raises(RuntimeError, match="another device's tensor"):
        learn(own)
