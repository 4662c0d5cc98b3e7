"""rotate(): the orthogonal bases in which the Jacobians of any small torch module are sparse."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from pipeline.config import UserError, validated
from pipeline.train.rotations.jacobians import Dense, of_module
from pipeline.train.rotations.measures import compare
from pipeline.train.rotations.orthogonal import INITS, initial
from pipeline.train.rotations.solvers import SolverConfig, solve
from stores.manifest import seed_of

# what makes a row's output depend on chance or on the other rows, in training alone
_TRAINS = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


Inputs = Tensor | np.ndarray | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Rotation:
    """R_out J R_inᵀ is sparse; the rows of both are the axes.

    fitted, heldout: what compare() measures there, "before", "after", "random"; heldout is None where no such inputs were
    given. values: the objective before each step. kept_start: no step led to a lower objective than that of the beginning.
    """

    R_in: Float64[Tensor, "d_in d_in"]
    R_out: Float64[Tensor, "d_out d_out"]
    fitted: dict[str, Any]
    heldout: dict[str, Any] | None
    values: list[float]
    kept_start: bool


def rotate(
    module: Callable[[Tensor], Tensor],
    inputs: Inputs,
    *,
    heldout: Inputs | None = None,
    init: str = "identity",
    n_polish: int = 200,
    seed: int = 0,
    device: str | None = None,
    **settings: Any,
) -> Rotation:
    """The rotations of a module's inputs and outputs in which its Jacobians at the inputs are sparse.

    module: (n, d_in) → (n, d_out), row by row, or (d_in,) → (d_out,). inputs: (n_inputs, d_in), a tensor, an array or
    lists. heldout: (n_heldout, d_in), for measures alone. settings: of SolverConfig: side ("in", "out", "both": what may
    turn; the other stays the identity), objective, n_iterations, columns …; equal_inputs is True by default. init:
    "identity", "random", or of the mean Jacobian and its second moments "qr", "svd", "eigen"; of the sides that may turn.
    n_polish: steps after n_iterations. device: of the search; by default that of the inputs. The module stays where its
    parameters are. Memory: n_inputs · d_out · d_in numbers, several times.

    Raises UserError: inputs or a module of which no Jacobians can be had, a device that is not there, or settings that are
    not known.
    """
    if "msp" in settings:
        raise UserError("rotate: msp is not a setting here: n_iterations steps of MSP come first, then n_polish others")
    config = validated(SolverConfig, {"equal_inputs": True, **settings, "seed": seed}, "rotate")
    if init not in INITS:
        raise UserError(f"rotate: init {init!r} is not one of {', '.join(INITS)}")
    if not isinstance(n_polish, Integral) or n_polish < 0:
        raise UserError(f"rotate: n_polish = {n_polish!r}, expected 0 or more steps")
    x = _rows(inputs, "inputs")
    device = str(x.device) if device is None else _usable(device)
    J = _jacobians(module, x, "inputs", device)
    held = None if heldout is None else _jacobians(module, _rows(heldout, "heldout"), "heldout", device)
    if held and held.shape[1:] != J.shape[1:]:
        raise UserError(
            f"rotate: Jacobians of heldout are {held.shape[1:]}, of inputs {J.shape[1:]}: expected the same"
        )
    try:
        config.check_columns(J.shape[2])
    except ValueError as error:
        raise UserError(f"rotate: {error}") from None
    start = _start(J, config, init)
    R_in, R_out, values = solve(J, config, *start, int(n_polish))
    kept = torch.equal(R_in, start[0]) and torch.equal(R_out, start[1])
    R_in, R_out = R_in.cpu(), R_out.cpu()
    measured = [None if own is None else compare(Dense(own.J.cpu()), R_in, R_out) for own in (J, held)]
    return Rotation(R_in, R_out, measured[0] or {}, measured[1], values, kept)


def _start(J: Dense, config: SolverConfig, init: str) -> tuple[Float64[Tensor, "a a"], Float64[Tensor, "b b"]]:
    """R_in, R_out where the search begins."""
    _, d_out, d_in = J.shape
    moments, mean = J.second_moments(), J.mean()
    sides = (
        ("in", d_in, config.seed, mean.T, moments[0]),
        ("out", d_out, seed_of("output", config.seed), mean, moments[1]),
    )
    found = []
    for side, d, seed, weights, moment in sides:
        own = init if config.side in (side, "both") else "identity"
        R = initial(own, d, seed, weights=lambda W=weights: W, moment=lambda M=moment: M)
        found.append(R.to(J.J.device))
    return found[0], found[1]


def _usable(device: Any) -> str:
    """Raises UserError: there is no such device, or it has no float64."""
    try:
        torch.zeros((), dtype=torch.float64, device=device).item()
    except Exception as error:  # torch has a kind of its own for each backend
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(f"rotate: device {device!r}: {reason}") from None
    return str(device)


def _rows(x: Any, name: str) -> Tensor:
    """As a tensor. Raises UserError: it is not numbers, of one shape, that lie in memory."""
    try:
        found = torch.as_tensor(x)
    except Exception as error:  # anything may be given
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"rotate: {name} are a {type(x).__name__} that torch.as_tensor does not take: {reason}"
        ) from None
    if found.layout != torch.strided or found.is_meta:
        raise UserError(f"rotate: {name} are a sparse or a meta tensor, expected a dense one")
    return found


def _jacobians(module: Callable[[Tensor], Tensor], x: Tensor, name: str, device: str) -> Dense:
    """At the rows of x, on the device. Raises UserError."""
    if x.ndim != 2 or not x.is_floating_point() or 0 in x.shape:
        kind = f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
        raise UserError(
            f"rotate: {name} are {kind}, expected (n_inputs, d_in) floating-point numbers, at least one row"
        )
    if not bool(x.isfinite().all()):
        raise UserError(f"rotate: {name} have values that are not finite")
    if isinstance(module, nn.Module):
        for at, part in module.named_modules():
            if isinstance(part, _TRAINS) and part.training:
                raise UserError(
                    f"rotate: {type(part).__name__} {at or 'itself'} is in training: call module.eval() first"
                )
        x = x.to(next((p.device for p in module.parameters()), x.device))
    try:
        row = _by_row(module, x)
        J = of_module(row, x)
    except UserError:
        raise
    except Exception as error:  # the module is the user's: it may raise anything
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"rotate: the module fails at {name} of shape {tuple(x.shape)}, {x.dtype}: {type(error).__name__}: {reason}"
        ) from error
    finite = J.J.isfinite().all(2).all(1)
    if not bool(finite.all()):
        raise UserError(f"rotate: the Jacobian at row {int((~finite).nonzero()[0])} of {name} is not finite")
    if not bool(J.J.any()):
        raise UserError(
            f"rotate: all Jacobians at {name} are 0: the outputs do not depend on them, or gradients are cut off"
        )
    return Dense(J.J.to(device))


def _by_row(module: Callable[[Tensor], Tensor], x: Float[Tensor, "n d_in"]) -> Callable[[Tensor], Tensor]:
    """The module as a function (d_in,) → (d_out,). Raises UserError: it gives no such thing, or not row by row."""
    two = x[[0, -1]]  # the same row twice where there is one
    with torch.no_grad():
        try:
            together = module(two)
        except (RuntimeError, IndexError, ValueError, TypeError):
            together = None  # it takes single rows
    if isinstance(together, Tensor) and together.ndim == 2 and len(together) == 2:
        with torch.no_grad():
            again, alone = module(two), torch.cat([module(two[:1]), module(two[1:])])
        size = 1e-3 * together.abs().max()
        if bool(((together - again).abs() > size).any()):
            raise UserError("rotate: the module gives other outputs for the same inputs: call module.eval() first")
        if alone.shape != together.shape or bool(((together - alone).abs() > size).any()):
            raise UserError(
                "rotate: a row's output depends on the other rows: expected a module that maps each by itself"
            )
        return lambda row: module(row[None])[0]
    with torch.no_grad():
        one = module(two[0])
    if not isinstance(one, Tensor) or one.ndim != 1:
        found = f"a tensor of shape {tuple(one.shape)}" if isinstance(one, Tensor) else f"a {type(one).__name__}"
        raise UserError(
            f"rotate: for an input of shape {tuple(two[0].shape)} the module gives {found}, expected (d_out,)"
        )
    return module
