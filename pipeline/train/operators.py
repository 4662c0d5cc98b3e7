"""The sparse products and the optimiser's step as PyTorch's operators unmix::NAME: Triton on CUDA, PyTorch on a CPU.

Fake tensors, the meta device, torch.compile and CUDA graphs see each as one operation that reads and writes what it says.
None has a derivative: the autograd functions of kernels.py call bag and dots, products.py calls encode and selects without
a gradient, fused.py calls update and sparse_update after a backward pass. An operator costs 2 µs more than the function
(measured; torch.library.custom_op 10 µs).

bag           (n_rows, d) float32: row i is the sum of values[e] · table[indices[e]] over its entries e.
dots          (n_entries,) float32: a[i] · table[indices[e]] for the entries e of row i.
update        One step of torch.optim.Adam on a weight (n, d) and its moments, in place, with β = (0.9, 0.999), ε = 6.25e-10.
              step is 1 at the first. unit: the gradient's part along a row is taken away before, and rows are divided by
              their length after it, as Family.constrain does for one hook point.
encode        (batch, d_sae) pre = x Wᵀ + b, in their dtype with float32 sums, and (batch, ⌈d_sae / GROUP⌉) the largest of
              each GROUP latents of a row. x (batch, d), W (d_sae, d), b (d_sae), of one dtype.
sparse_update update with the gradient bag(values, indices, offsets, table), which is never written.

values (n_entries,) float32, indices (n_entries,) int64, offsets (n_rows + 1,) int64: a code, see kernels.Entries. a, table,
gradient: float32 or bfloat16. step, lr: tensors () of floating-point numbers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pipeline.train import on_cpu

_CODE = "Tensor values, Tensor indices, Tensor offsets, Tensor table"
_STATE = "Tensor(a!) weight, Tensor(b!) mean, Tensor(c!) square, Tensor step, Tensor lr, bool unit"


def _on_cuda(name: str) -> Callable:
    def launched(*arguments):
        from pipeline.train.triton import launches  # imported late: Triton is there where CUDA is

        return getattr(launches, name)(*arguments)

    return launched


def _empty_rows(values: Tensor, indices: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    return table.new_empty((offsets.shape[0] - 1, table.shape[1]), dtype=torch.float32)


def _empty_entries(a: Tensor, table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    return table.new_empty(indices.shape[0], dtype=torch.float32)


def _empty_pre(x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    n, d_sae = x.shape[0], W.shape[0]
    return x.new_empty((n, d_sae)), x.new_empty((n, (d_sae + on_cpu.GROUP - 1) // on_cpu.GROUP))


def _nothing(*_) -> None:
    return None


for _name, _schema, _on_cpu, _fake in (
    ("bag", f"({_CODE}) -> Tensor", on_cpu.bag, _empty_rows),
    ("dots", "(Tensor a, Tensor table, Tensor indices, Tensor offsets) -> Tensor", on_cpu.dots, _empty_entries),
    ("encode", "(Tensor x, Tensor W, Tensor b) -> (Tensor, Tensor)", on_cpu.encode, _empty_pre),
    ("update", f"(Tensor gradient, {_STATE}) -> ()", on_cpu.update, _nothing),
    ("sparse_update", f"({_CODE}, {_STATE}) -> ()", on_cpu.sparse_update, _nothing),
):
    torch.library.define(f"unmix::{_name}", _schema)
    torch.library.impl(f"unmix::{_name}", "cpu", _on_cpu)
    torch.library.impl(f"unmix::{_name}", "cuda", _on_cuda(_name))
    torch.library.register_fake(f"unmix::{_name}", _fake)

bag, dots, encode = torch.ops.unmix.bag, torch.ops.unmix.dots, torch.ops.unmix.encode
update, sparse_update = torch.ops.unmix.update, torch.ops.unmix.sparse_update
