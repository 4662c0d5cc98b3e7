"""rotate(): of any small module, and what it refuses."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.config import UserError
from pipeline.train import rotations
from pipeline.train.rotations import rotate
from pipeline.train.rotations.jacobians import Dense, of_module
from pipeline.train.rotations.measures import agreement, measure
from pipeline.train.rotations.orthogonal import random_rotation

README = Path(rotations.__file__).parent / "README.md"
X = torch.randn(64, 12, generator=torch.Generator().manual_seed(0))
IN, OUT = (random_rotation(12, seed).float() for seed in (1, 2))
EYE = torch.eye(12, dtype=torch.float64)


def hidden(x: Tensor) -> Tensor:
    """tanh in other axes than those that are seen, the same for rows and for batches of them."""
    return torch.tanh(2 * (x @ IN.T)) @ OUT


def net(last: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), last)


def test_both_hidden_bases_are_found_again_on_rows_not_seen_too() -> None:
    found = rotate(hidden, X, heldout=torch.randn(32, 12, generator=torch.Generator().manual_seed(1)), init="random")
    assert agreement(found.R_in, IN) > 0.99
    assert agreement(found.R_out, OUT) > 0.99
    assert found.heldout is not None
    for measured in (found.fitted, found.heldout):
        assert measured["after"]["log"] < 0.3 * measured["before"]["log"]
        assert measured["after"]["mass_in_1%"] > 1.5 * measured["before"]["mass_in_1%"]
    assert not found.kept_start


def test_the_measures_are_of_the_jacobians_in_the_bases_found() -> None:
    found = rotate(hidden, X, n_iterations=5, n_polish=5)
    J = of_module(hidden, X)
    assert found.heldout is None
    assert found.fitted["before"] == measure(J, EYE, EYE)
    assert found.fitted["after"] == measure(J, found.R_in, found.R_out)
    assert len(found.values) == 10
    for R in (found.R_in, found.R_out):
        assert (R @ R.T - EYE).abs().max() < 1e-10


@pytest.mark.parametrize(("side", "turned"), [("in", (True, False)), ("out", (False, True)), ("both", (True, True))])
def test_what_may_not_turn_does_not(side: str, turned: tuple[bool, bool]) -> None:
    for init in ("identity", "random"):
        found = rotate(hidden, X, side=side, init=init, n_iterations=3, n_polish=3)
        assert tuple(not torch.equal(R, EYE) for R in (found.R_in, found.R_out)) == turned


def test_a_module_of_single_rows_and_one_of_batches_have_the_same_jacobians() -> None:
    W = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    rows = rotate(lambda row: torch.tanh(W @ row), X, n_iterations=3, n_polish=3)
    batches = rotate(lambda x: torch.tanh(x @ W.T), X, n_iterations=3, n_polish=3)
    assert rows.R_in.shape == (12, 12)
    assert rows.R_out.shape == (5, 5)
    assert rows.fitted["before"] == pytest.approx(batches.fitted["before"], rel=1e-5)


def test_arrays_and_lists_are_inputs_as_tensors_are() -> None:
    expected = rotate(hidden, X, heldout=X[:8], n_iterations=2, n_polish=2)
    for given in (X.numpy(), X.tolist()):
        found = rotate(hidden, given, heldout=given[:8], n_iterations=2, n_polish=2)
        assert torch.equal(found.R_in, expected.R_in)
        assert found.heldout == expected.heldout


def test_a_seed_gives_the_same_bits_and_another_one_other_starts() -> None:
    first, again, other = (rotate(hidden, X, init="random", seed=s, n_iterations=2, n_polish=2) for s in (3, 3, 4))
    assert torch.equal(first.R_in, again.R_in)
    assert not torch.equal(first.R_in, other.R_in)


def test_where_no_step_helps_the_start_is_kept_and_said() -> None:
    """From the singular vectors of a linear map its Jacobian is diagonal, as sparse as can be: steps only lead away."""
    A = torch.randn(5, 12, generator=torch.Generator().manual_seed(2))
    found = rotate(lambda x: x @ A.T, X, init="svd", n_iterations=1, n_polish=5)
    assert found.kept_start
    G = found.R_out.float() @ A @ found.R_in.T.float()
    torch.testing.assert_close(G.abs()[:, :5], torch.diag(torch.linalg.svdvals(A)), atol=1e-5, rtol=0)


def test_the_module_is_left_as_it_was() -> None:
    model = net(nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 4))).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rotate(model, X, n_iterations=2, n_polish=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


NAN = X.clone()
NAN[3, 2] = torch.nan


@pytest.mark.parametrize(
    ("module", "inputs", "settings", "line"),
    [
        (net(nn.Dropout()), X, {}, r"Dropout 2 is in training: call module\.eval\(\) first"),
        (net(nn.BatchNorm1d(8)), X, {}, r"BatchNorm1d 2 is in training: call module\.eval\(\)"),
        (torch.nn.functional.dropout, X, {}, r"other outputs for the same inputs"),
        (lambda x: x - x.mean(0), X, {}, r"depends on the other rows"),
        (torch.zeros_like, X, {}, r"all Jacobians at inputs are 0"),
        (lambda x: x.detach() * 2, X, {}, r"gradients are cut off"),
        (lambda x: (x - x).sqrt() + x, X, {}, r"the Jacobian at row 0 of inputs is not finite"),
        (lambda x: (x, x), X, {}, r"the module gives a tuple, expected \(d_out,\)"),
        (lambda x: x.sum(), X, {}, r"gives a tensor of shape \(\), expected \(d_out,\)"),
        (net(nn.Identity()), X[:, :3], {}, r"fails at inputs of shape \(64, 3\).*cannot be multiplied"),
        (net(nn.Identity()), X.double(), {}, r"fails at inputs of shape \(64, 12\), torch.float64: RuntimeError"),
        (hidden, X[0], {}, r"inputs are \(12,\) float32, expected \(n_inputs, d_in\)"),
        (hidden, X[:0], {}, r"inputs are \(0, 12\) float32, expected .* at least one row"),
        (hidden, X.long(), {}, r"inputs are \(64, 12\) int64, expected .* floating-point numbers"),
        (hidden, NAN, {}, r"inputs have values that are not finite"),
        (hidden, X, {"heldout": X[:, :4]}, r"fails at heldout of shape \(64, 4\)"),
        (torch.tanh, X, {"heldout": X[:, :4]}, r"Jacobians of heldout are \(4, 4\), of inputs \(12, 12\)"),
        (hidden, X, {"sides": "in"}, r"unknown key rotate\.sides, did you mean side"),
        (hidden, X, {"side": "up"}, r"rotate\.side: .*'both', got 'up'"),
        (hidden, X, {"msp": 0.5}, r"msp is not a setting here"),
        (hidden, X, {"init": "pca"}, r"init 'pca' is not one of identity, random, qr, svd, eigen"),
        (hidden, X, {"columns": 13}, r"columns = 13 are more than the 12 there are"),
        (hidden, X, {"n_polish": -1}, r"n_polish = -1, expected 0 or more"),
        (hidden, X, {"n_polish": "a"}, r"n_polish = 'a', expected 0 or more"),
        (hidden, X, {"device": "banana"}, r"device 'banana': .*device"),
        (hidden, X, {"device": "meta"}, r"device 'meta': "),
        (hidden, [[1.0], [1.0, 2.0]], {}, r"inputs are a list that torch.as_tensor does not take: "),
        (hidden, None, {}, r"inputs are a NoneType that torch.as_tensor does not take: "),
        (hidden, X, {"heldout": "a"}, r"heldout are a str that torch.as_tensor does not take: "),
        (hidden, X.to_sparse(), {}, r"inputs are a sparse or a meta tensor, expected a dense one"),
    ],
)
def test_what_cannot_be_rotated_is_refused_in_one_line(
    module: Callable[[Tensor], Tensor], inputs: Any, settings: dict[str, Any], line: str
) -> None:
    with pytest.raises(UserError, match=line) as refused:
        inspect.unwrap(rotate)(module, inputs, **settings)  # users' calls are not checked as the tests' are
    assert "\n" not in str(refused.value)


def test_the_readmes_example_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    exec(code, {})  # it ends with an assertion of what the text says
    before, after = map(float, capsys.readouterr().out.split())
    assert after > 2 * before


def test_the_jacobians_of_the_rotated_module_are_the_rotated_ones() -> None:
    """The chain rule: y = R_out f(R_inᵀ x) has the Jacobians that were measured."""
    found = rotate(hidden, X, n_iterations=5, n_polish=5)
    R_in, R_out = found.R_in.float(), found.R_out.float()
    J = of_module(lambda x: R_out @ hidden(x @ R_in), X @ R_in.T)
    own = measure(Dense(J.J), EYE, EYE)
    assert own["log"] == pytest.approx(found.fitted["after"]["log"], rel=1e-3)
