"""The kernels' numbers beside PyTorch's: `python -m tests.pipeline.train.triton.values cpu|cuda`. On "cpu" in Triton's
interpreter, with TRITON_INTERPRET=1, which must be set before triton is imported. Prints the names of the checks that hold.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipeline.train import on_cpu
from pipeline.train.kernels import Entries
from pipeline.train.triton import bag, dots, encode, launches, parts, update
from pipeline.train.triton.parts import AT_ONCE

Device = Callable[[Tensor], Tensor]
PART = parts.PART
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:  # it is slow: a row of few entries shall have many parts
    PART = parts.PART = bag.PART = dots.PART = update.PART = 8
HOT = 9 * PART + 7  # more parts than are added at a time, the last one not whole
LENGTHS = (3, 0, HOT, 1, PART, PART + 1, 0)
WIDTHS = ((24, torch.bfloat16), (300, torch.float32))  # the last one is wider than a block
N_TABLE = HOT + 20
BEYOND = 2**31  # more positions than an int32 has


def code(lengths: tuple[int, ...], seed: int = 0) -> Entries:
    generator = torch.Generator().manual_seed(seed)
    latents = [torch.randperm(N_TABLE, generator=generator)[:n].sort().values for n in lengths]
    offsets = torch.tensor((0, *lengths)).cumsum(0)
    return Entries(torch.randn(int(offsets[-1]), generator=generator), torch.cat(latents), offsets)


def random(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def alike(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-4)


def bag_is_embedding_bags(on: Device) -> None:
    """Rows of 0, 1, PART and PART + 1 entries, and one with most of all; tables of both dtypes."""
    own = code(LENGTHS)
    for d, dtype in WIDTHS:
        table = random(N_TABLE, d).to(dtype)
        alike(launches.bag(*map(on, (*own, table))), on_cpu.bag(*own, table))


def dots_are_sampled_addmms(on: Device) -> None:
    own = code(LENGTHS)
    for d, dtype in WIDTHS:
        a, table = random(len(LENGTHS), d, seed=2), random(N_TABLE, d).to(dtype)
        found = launches.dots(*map(on, (a, table, own.indices, own.offsets)))
        alike(found, on_cpu.dots(a, table, own.indices, own.offsets))


def codes_without_entries(on: Device) -> None:
    for lengths in ((0, 0, 0), ()):
        own, table = (
            code((*lengths, 0))._replace(offsets=torch.zeros(len(lengths) + 1, dtype=torch.long)),
            random(5, 24),
        )
        found = launches.bag(*map(on, (*own, table)))
        assert torch.equal(found.cpu(), torch.zeros(len(lengths), 24))
        assert len(launches.dots(*map(on, (random(len(lengths), 24), table, own.indices, own.offsets)))) == 0


def a_row_has_the_bits_that_it_has_alone(on: Device) -> None:
    """Where a row begins, and what is beside it, changes nothing."""
    own, table = code(LENGTHS), on(random(N_TABLE, 24))
    found = launches.bag(*map(on, own), table)
    assert torch.equal(found, launches.bag(*map(on, own), table))
    for row, (low, high) in enumerate(zip(own.offsets[:-1].tolist(), own.offsets[1:].tolist(), strict=True)):
        alone = Entries(own.values[low:high], own.indices[low:high], torch.tensor([0, high - low]))
        assert torch.equal(launches.bag(*map(on, alone), table)[0], found[row])


def entries_in_no_row_are_passed_over(on: Device) -> None:
    own, table = code(LENGTHS), random(N_TABLE, 24)
    spare = Entries(*(torch.cat([t, t.new_full((300,), 3)]) for t in own[:2]), own.offsets)
    alike(launches.bag(*map(on, (*spare, table))), on_cpu.bag(*own, table))


def update_is_adams(on: Device) -> None:
    """Three steps at a rate so large that 1 - .999 in float32 shows."""
    for unit in (False, True):
        for d in (24, 300):
            weight = torch.nn.functional.normalize(random(7, d), dim=1)
            expected = [weight, *torch.zeros(2, 7, d)]
            found = [on(t.clone()) for t in expected]
            for step in range(1, 4):
                gradient, at = random(7, d, seed=10 + step), (torch.tensor(float(step)), torch.tensor(1.0))
                on_cpu.update(gradient, *expected, *at, unit)
                launches.update(on(gradient), *found, *map(on, at), unit)
            for own, other in zip(found, expected, strict=True):
                torch.testing.assert_close(own.cpu(), other, rtol=1e-5, atol=1e-6)


def sparse_update_is_bag_then_update(on: Device) -> None:
    own, at = code(LENGTHS), (torch.tensor(2.0), torch.tensor(1e-2))
    for (d, dtype), unit in zip(WIDTHS, (True, False), strict=True):
        table, shape = random(N_TABLE, d).to(dtype), (len(LENGTHS), d)
        expected = [torch.nn.functional.normalize(random(*shape), dim=1), *random(2, *shape).square()]
        found = [on(t.clone()) for t in expected]
        on_cpu.sparse_update(*own, table, *expected, *at, unit)
        launches.sparse_update(*map(on, (*own, table)), *found, *map(on, at), unit)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-5)


def encode_is_linear_and_its_maxima(on: Device) -> None:
    """Edges of tiles, of turns and of the last group, which is not whole. All numbers are negative: a 0 from outside shows."""
    for n, n_latents, d in ((130, 330, 70), (3, 64, 24)):
        given = [t.bfloat16() for t in (random(n, d), random(n_latents, d, seed=2), 5 * random(n_latents) - 40)]
        x, W, b = (t.float() for t in given)
        # The interpreter multiplies the bits of bfloat16 numbers as if they were integers.
        pre, maxima = (t.cpu() for t in encode.tiled(*map(on, (x, W, b) if INTERPRETED else given)))
        exact = x @ W.T + b
        torch.testing.assert_close(pre.float(), exact, rtol=2**-8, atol=1e-4)  # rounded once
        assert torch.equal(maxima, torch.stack([part.amax(1) for part in pre.split(64, dim=1)], dim=1))


def positions_beyond_an_int32(on: Device) -> None:
    """A table of more than 2³¹ numbers, and entries that begin after the 2³¹st: files with holes, which take no room."""
    with tempfile.TemporaryDirectory() as folder:

        def holes(name: str, n: int, dtype: torch.dtype) -> Tensor:
            return torch.from_file(str(Path(folder) / name), shared=True, size=n, dtype=dtype)

        d, n, begin = 64, BEYOND // 64 + 3, BEYOND + 5
        table = holes("table", n * d, torch.bfloat16).view(n, d)
        table[-1], a = 2.0, torch.full((1, d), 0.5)
        values, out = holes("values", begin + 3, torch.float32), holes("out", begin + 3, torch.float32)
        indices, offsets = holes("indices", begin + 3, torch.int64), torch.tensor([begin, begin + 3])
        values[begin:], indices[begin:] = 1.5, n - 1
        made = torch.empty(1, d)
        constants = {"d": d, "PART": PART, "AT_ONCE": AT_ONCE}
        bag.rows[(1, 1)](values, indices, offsets, table, made, made, BLOCK=64, **constants)  # type: ignore
        assert (made == 9.0).all()
        dots.pairs[(1,)](a, indices, offsets, table, out, 1, 0, BLOCK=64, **constants)  # type: ignore
        assert out[begin:].tolist() == [64.0] * 3


CHECKS: tuple[Callable[[Device], None], ...] = (
    bag_is_embedding_bags,
    dots_are_sampled_addmms,
    codes_without_entries,
    a_row_has_the_bits_that_it_has_alone,
    entries_in_no_row_are_passed_over,
    update_is_adams,
    sparse_update_is_bag_then_update,
    encode_is_linear_and_its_maxima,
)

if __name__ == "__main__":
    device = sys.argv[1]
    for check in CHECKS if device == "cuda" else (*CHECKS, positions_beyond_an_int32):
        check(lambda tensor: tensor.to(device))
        print(check.__name__)
    print("all")
