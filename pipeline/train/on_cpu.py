"""What operators.py does on a CPU, with PyTorch."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import normalize
from torch.optim.adam import adam

from stores.products import linear

# Compressed sparse rows are complete for what is done here, the products of some pairs of rows.
warnings.filterwarnings("ignore", message="Sparse (CSR tensor support is in beta|invariant checks are)")

BETAS, EPS = (0.9, 0.999), 6.25e-10
SHORTEST = 1e-12  # by which a row of unit length is divided at least
GROUP = 64  # latents of which encode gives the largest
LARGEST_D = (
    8192  # columns of what the kernels of update take: a row is 8 columns for each of 1,024 threads; 16 would spill
)


def bag(values: Tensor, indices: Tensor, offsets: Tensor, table: Tensor) -> Tensor:
    return F.embedding_bag(indices, table.float(), offsets[:-1], per_sample_weights=values, mode="sum")


def dots(a: Tensor, table: Tensor, indices: Tensor, offsets: Tensor) -> Tensor:
    n = int(offsets[-1])  # what lies behind belongs to no row
    pattern = torch.sparse_csr_tensor(offsets, indices[:n], torch.zeros(n), size=(len(a), len(table)))
    found = torch.sparse.sampled_addmm(pattern, a.float(), table.float().T, beta=0.0).values()
    return found if n == len(indices) else F.pad(found, (0, len(indices) - n))


def update(
    gradient: Tensor, weight: Tensor, mean: Tensor, square: Tensor, step: Tensor, lr: Tensor, unit: bool
) -> None:
    gradient = gradient.float()
    if unit:
        gradient = gradient.addcmul((gradient * weight).sum(-1, keepdim=True), weight, value=-1)
    before = (step - 1).float()  # Adam counts it up
    adam(
        [weight], [gradient], [mean], [square], [], [before], fused=True,
        amsgrad=False, beta1=BETAS[0], beta2=BETAS[1], lr=float(lr), weight_decay=0.0, eps=EPS, maximize=False,
    )  # fmt: skip
    if unit:
        weight.copy_(normalize(weight, dim=-1, eps=SHORTEST))


def sparse_update(
    values: Tensor, indices: Tensor, offsets: Tensor, table: Tensor,
    weight: Tensor, mean: Tensor, square: Tensor, step: Tensor, lr: Tensor, unit: bool,
) -> None:  # fmt: skip
    update(bag(values, indices, offsets, table), weight, mean, square, step, lr, unit)


def encode(x: Tensor, W: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    pre = linear(x, W, b)
    n = pre.shape[1] - pre.shape[1] % GROUP
    maxima = pre[:, :n].unflatten(1, (-1, GROUP)).amax(2)
    return pre, maxima if n == pre.shape[1] else torch.cat([maxima, pre[:, n:].amax(1, keepdim=True)], dim=1)
