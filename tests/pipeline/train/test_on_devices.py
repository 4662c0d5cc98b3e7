"""The training step on a GPU, and on a device that pretends to be one: tests/pretended.py."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.train import checkpoint, learner, operators
from pipeline.train.kernels import Entries, Transposed, bag, dots
from pipeline.train.learner import FamilyLearner
from pipeline.train.methods import METHODS
from pipeline.train.stack import Stack
from tests.conftest import SLOW_WITHOUT, planted_rows, source_of
from tests.pipeline.train.test_operators import CALLS

FAMILIES = [name for name, method in METHODS.items() if method.family is not None]
WITH_DEAD = [name for name in FAMILIES if "aux_k" in METHODS[name].config.model_fields]
N_STEPS = 6
ON_A_GPU = pytest.mark.parametrize("device", SLOW_WITHOUT, indirect=True)


def sizes(device: str) -> tuple[int, int, int]:
    """(d, d_sae, batch); d is no power of two on a GPU, and a step there is large enough to be in many blocks."""
    return (384, 6144, 1024) if device.startswith("cuda") else (20, 256, 48)


def made(name: str, device: str, x: Tensor, dtype: torch.dtype = torch.float32, **settings: Any) -> FamilyLearner:
    given = {"d_sae": sizes(device)[1], "lr": 2e-3, "dead_after_tokens": 2 * sizes(device)[2], **settings}
    given |= {"k": 4} if "k" in METHODS[name].config.model_fields else {}
    family = METHODS[name].family
    assert family is not None
    own = FamilyLearner(family, family.Config(**given), source_of(x), device)
    own.dtype = dtype
    return own


def rows(device: str) -> Tensor:
    d, _, batch = sizes(device)
    return torch.from_numpy(planted_rows(N_STEPS * batch, d, G=4 * d))


def learn(own: FamilyLearner, x: Tensor, steps: range = range(N_STEPS)) -> dict[str, Tensor]:
    """What the last step reports."""
    batches = x.to(own.model.W_dec.device).chunk(N_STEPS)
    return [own.step(batches[step], step, 20) for step in steps][-1]


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor.cpu(), other[name].cpu()), name


def alike(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """By the norm of the difference over the norm: Adam makes a whole step of a gradient that is rounding alone, so that
    single numbers may differ by the rate."""
    for name, tensor in expected.items():
        difference = float((found[name].cpu().float() - tensor.float()).norm())
        assert difference <= tolerance * float(tensor.float().norm()) + 1e-6, (name, difference)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_learns_what_it_learns_on_the_cpu(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With latents that die, and features that begin again; half a percent of each weight's norm."""
    monkeypatch.setattr(learner, "SMALL", 0)
    x, batch = rows(device), sizes(device)[2]
    settings = {"resample_every_tokens": 4 * batch} if name not in WITH_DEAD else {}
    there = made(name, device, x, **settings)
    here = FamilyLearner(type(there.model), there.config, source_of(x), "cpu")
    here.dtype = torch.float32
    expected, found = learn(here, x), learn(there, x)
    alike(there.to_dictionary({}).cpu().state_dict(), here.to_dictionary({}).state_dict(), 5e-3)
    assert {k: float(v) for k, v in found.items()} == pytest.approx(
        {k: float(v) for k, v in expected.items()}, rel=2e-3
    )


@ON_A_GPU
@pytest.mark.parametrize("name", ["topk", "batch_topk", "relu_l1"])
def test_in_bfloat16_the_error_is_that_of_the_cpu(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two percent: of numbers that bfloat16 makes equal, devices choose others."""
    monkeypatch.setattr(learner, "SMALL", 0)
    x = rows(device)
    there = made(name, device, x, torch.bfloat16)
    here = FamilyLearner(type(there.model), there.config, source_of(x), "cpu")
    here.dtype = torch.bfloat16
    assert float(learn(there, x)["mse"]) == pytest.approx(float(learn(here, x)["mse"]), rel=0.02)


@ON_A_GPU
@pytest.mark.parametrize("small", [False, True], ids=["sparse", "dense"])
@pytest.mark.parametrize("name", FAMILIES)
def test_repeated_and_resumed_it_ends_with_the_same_bits(
    name: str, small: bool, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a checkpoint's file, with features that die and with none. It would have caught a sum in any order, a count of
    tokens that foresight has lost, and what is no part of the state."""
    monkeypatch.setattr(learner, "SMALL", 10**9 if small else 0)
    x, settings = rows(device), {"d_sae": 256 if small else sizes(device)[1]}
    for dead_after in (2 * sizes(device)[2], 10**9) if name in WITH_DEAD else (2 * sizes(device)[2],):
        whole, again, half, resumed = (
            made(name, device, x, **settings, dead_after_tokens=dead_after) for _ in range(4)
        )
        last = learn(whole, x), learn(again, x)
        same(*last)
        same(whole.state(), again.state())
        learn(half, x, range(4))
        checkpoint.write(tmp_path, dead_after, half.state())
        resumed.load_state(checkpoint.read(tmp_path, dead_after))
        same(learn(resumed, x, range(4, N_STEPS)), last[0])
        same(resumed.state(), whole.state())


@ON_A_GPU
@pytest.mark.parametrize("name", FAMILIES)
def test_every_operation_of_a_step_is_deterministic(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch knows them, which raises at one that is not, and fills new memory with nan: what is read before it is
    written shows."""
    monkeypatch.setattr(learner, "SMALL", 0)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    x = rows(device)
    torch.use_deterministic_algorithms(True)
    try:
        own = made(name, device, x)
        learn(own, x, range(4))
        assert all(bool(t.isfinite().all()) for t in own.state().values())
    finally:
        torch.use_deterministic_algorithms(False)


@ON_A_GPU
@pytest.mark.parametrize("name", ["topk", "relu_l1", "jumprelu"])
def test_a_stack_learns_what_each_learns_alone(name: str, device: str) -> None:
    """To half a percent; on a CPU to the last bit, in test_learner.py. Repeated, it has the same bits."""
    x = rows(device)
    alone, *stacks = ([made(name, device, x, d_sae=80, seed=seed) for seed in range(3)] for _ in range(3))
    for stack in map(Stack, stacks):
        for step, own in enumerate(x.to(device).chunk(N_STEPS)):
            stack.step(own, step, 20)
    for one, first, second in zip(alone, *stacks, strict=True):
        learn(one, x)
        alike(first.to_dictionary({}).cpu().state_dict(), one.to_dictionary({}).cpu().state_dict(), 5e-3)
        same(first.state(), second.state())


@pytest.mark.parametrize("name", CALLS)
def test_an_operator_gives_what_it_gives_on_the_cpu(name: str, device: str) -> None:
    """Through PyTorch's dispatcher, which chooses the kernel by the device; what is written in place, too."""
    here = [a.clone() if isinstance(a, Tensor) else a for a in CALLS[name]]
    there = [a.to(device) if isinstance(a, Tensor) else a for a in CALLS[name]]
    expected, found = (getattr(operators, name)(*arguments) for arguments in (here, there))
    made = (found,) if isinstance(found, Tensor) else found or ()
    wanted = (expected,) if isinstance(expected, Tensor) else expected or ()
    pairs = [*zip(made, wanted, strict=True), *zip(there, here, strict=True)]
    for one, other in pairs:
        if isinstance(one, Tensor):
            torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-5)


def hot_code(batch: int, d_sae: int, k: int) -> Entries:
    """Latent 0 is in every row that has any; every seventh row has none, and two lie side by side."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.full((batch,), k)
    lengths[::7], lengths[1] = 0, 0
    indices = torch.rand(batch, d_sae - 1, generator=generator).topk(k - 1, dim=1).indices + 1
    indices = torch.cat([torch.zeros(batch, 1, dtype=torch.long), indices], dim=1)[lengths > 0]
    n = int(lengths.sum())
    values = torch.rand(n, generator=generator) + 0.1
    return Entries(values, indices.flatten(), torch.nn.functional.pad(lengths.cumsum(0), (1, 0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sparse_products_of_a_large_code(dtype: torch.dtype, device: str) -> None:
    """d is no power of two, rows are empty, and one latent is in all others: its row of the transpose is as long as the
    batch."""
    d, d_sae, batch, k = (771, 24_576, 4096, 32) if device.startswith("cuda") else (13, 300, 64, 4)
    code, generator = hot_code(batch, d_sae, k), torch.Generator().manual_seed(1)
    table, x = torch.randn(d_sae, d, generator=generator).to(dtype), torch.randn(batch, d, generator=generator)
    there = Entries(*(part.to(device) for part in code))

    def close(found: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-3)

    close(bag(there, table.to(device)), bag(code, table))
    close(dots(x.to(device), table.to(device), there), dots(x, table, code))
    expected = Transposed(code, d_sae).times(code.values, x)
    close(Transposed(there, d_sae).times(there.values, x.to(device)), expected)
    transposed = Transposed(there, d_sae)
    by_latent = there.values[transposed.order], transposed.rows, transposed.offsets
    weight = normalize(torch.randn(d_sae, d, generator=generator), dim=1)
    state = [weight, torch.zeros(d_sae, d), torch.zeros(d_sae, d)]
    moved = [t.clone().to(device) for t in state]
    at = torch.tensor(1.0), torch.tensor(1e-3)
    operators.sparse_update(*by_latent, x.to(device), *moved, *(t.to(device) for t in at), True)
    operators.update(expected, *state, *at, True)
    for one, other in zip(moved[1:], state[1:], strict=True):
        close(one, other)
    assert float((moved[0].cpu() - state[0]).norm()) < 1e-3 * float(state[0].norm())


def test_positions_beyond_an_int32(device: str) -> None:
    """On a GPU a table of more than 2³¹ numbers, of whose last row the code is."""
    on_cuda = device.startswith("cuda")
    if on_cuda and torch.cuda.mem_get_info(device)[0] < 12 << 30:
        pytest.skip("needs 12 GB of the device's memory")
    d, n = 64, 2**31 // 64 + 3 if on_cuda else 99
    table = torch.zeros(n, d, dtype=torch.bfloat16, device=device)
    table[-1] = 2.0
    values, indices = torch.full((3,), 1.5, device=device), torch.full((3,), n - 1, device=device)
    code = Entries(values, indices, torch.tensor([0, 1, 3], device=device))
    assert bag(code, table)[:, 0].tolist() == [3.0, 6.0]
    assert dots(torch.full((2, d), 0.5, device=device), table, code).tolist() == [64.0] * 3


def test_the_precision_that_was_asked_for_is_what_is_multiplied_in(device: str) -> None:
    """ "auto" is bfloat16 on a GPU that multiplies it."""
    source = source_of(rows(device))
    method = METHODS["topk"]
    assert method.family is not None
    for precision in ("float32", "bfloat16", "auto"):
        own = FamilyLearner(
            method.family, method.family.Config(d_sae=2048, k=4), replace(source, precision=precision), device
        )
        if precision != "auto":
            assert own.dtype == getattr(torch, precision)
        elif device.startswith("cuda"):
            assert (own.dtype == torch.bfloat16) == torch.cuda.is_bf16_supported(including_emulation=False)
