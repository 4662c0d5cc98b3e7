from itertools import pairwise

import pytest
import torch

from pipeline.train.rotations.invertible import solve_invertible
from pipeline.train.rotations.jacobians import Dense
from pipeline.train.rotations.measures import agreement, agreement_null, mean_magnitude, measure, random_null
from pipeline.train.rotations.orthogonal import RETRACTIONS, random_rotation
from pipeline.train.rotations.solvers import Solver, SolverConfig, chain, gradient, rms, rotated, solve
from stores.manifest import seed_of


def planted(d: int, n: int, seed: int, both: bool = False) -> tuple[Dense, torch.Tensor, torch.Tensor]:
    """Jacobians R_outᵀ S R_in, a tenth of the entries of S not zero; R_in; R_out."""
    generator = torch.Generator().manual_seed(seed)
    S = torch.randn(n, d, d, generator=generator) * (torch.rand(n, d, d, generator=generator) < 0.1)
    R_in = random_rotation(d, seed_of("test in", seed)).float()
    R_out = random_rotation(d, seed_of("test out", seed)).float() if both else torch.eye(d)
    return Dense(R_out.T @ S @ R_in), R_in, R_out


def recovered(d: int, n: int, seed: int, n_iterations: int, n_polish: int, both: bool) -> float:
    J, R_in, R_out = planted(d, n, seed, both)
    config = SolverConfig(side="both" if both else "in", n_iterations=n_iterations)
    start = random_rotation(d, seed_of("start", seed)) if both else R_out
    found_in, found_out, _ = solve(J, config, random_rotation(d, seed), start, n_polish)
    return min(agreement(found_in, R_in), agreement(found_out, R_out))


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_planted_sparse_jacobians_are_recovered(seed: int, both: bool) -> None:
    assert recovered(32, 64, seed, 40, 40, both) > 0.98


def test_a_polish_of_half_precision_products_ends_as_sparse() -> None:
    J, R_in, R_out = planted(32, 64, 0)
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        solver = Solver(SolverConfig(side="in", msp=0.3), random_rotation(32, 0), R_out, dtype)
        values = [float(solver.step(J, step, 120)["log"]) for step in range(120)]
        assert agreement(solver.R["in"], R_in) > 0.98
        assert (solver.R["in"] @ solver.R["in"].T - torch.eye(32)).abs().max() < 1e-10
        ends.append(values[-1])
    assert ends[0] != ends[1]
    assert ends[1] == pytest.approx(ends[0], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_wide_planted_sparse_jacobians_are_recovered(seed: int, both: bool) -> None:
    assert recovered(128, 32, seed, 40, 400 if both else 60, both) > 0.98


@pytest.mark.parametrize("side", ["in", "out", "both"])
def test_msp_never_falls_on_the_same_inputs(side) -> None:
    J, _, _ = planted(16, 40, 0, both=True)
    config = SolverConfig(objective="l4", side=side, n_iterations=40)
    _, _, values = solve(J, config, random_rotation(16, 1), random_rotation(16, 2))
    assert all(after >= before * (1 - 1e-6) for before, after in pairwise(values))
    assert values[-1] > 1.5 * values[0]


@pytest.mark.parametrize("retraction", RETRACTIONS)
@pytest.mark.parametrize("side", ["in", "out", "both"])
def test_any_solver_ends_with_rotations_that_keep_the_norm(side, retraction: str) -> None:
    J, _, _ = planted(16, 20, 0, both=True)
    config = SolverConfig(side=side, retraction=retraction, n_iterations=4)
    R_in, R_out, values = solve(J, config, random_rotation(16, 1), random_rotation(16, 2), n_polish=30)
    for R in (R_in, R_out):
        assert (R @ R.T - torch.eye(16)).abs().max() < 1e-10
    G = rotated(J, R_in, R_out)
    torch.testing.assert_close(G.square().sum((1, 2)), J.squared_norms(), rtol=1e-5, atol=0)
    assert values[-1] < values[4] < values[0]


def test_jacobians_of_double_precision_leave_the_rotations_without_a_gradient() -> None:
    J, _, _ = planted(8, 10, 0)
    solver = Solver(SolverConfig(), random_rotation(8, 1), random_rotation(8, 2))
    for step in range(4):
        solver.step(Dense(J.J.double()), step, 4)
    assert not any(tensor.requires_grad for tensor in solver.state.values())


def test_epsilon_falls_from_its_start_and_the_value_told_is_of_the_last() -> None:
    """The first step goes down the objective with epsilon_start; what it reports is with epsilon."""
    J, _, _ = planted(8, 10, 0)
    R = {"in": random_rotation(8, 1), "out": torch.eye(8, dtype=torch.float64)}
    found = []
    for epsilon, start in ((0.1, 2.0), (0.5, 2.0), (2.0, 2.0)):
        solver = Solver(SolverConfig(side="in", msp=0, epsilon=epsilon, epsilon_start=start), R["in"], R["out"])
        value = solver.step(J, 0, 10)["log"]
        _, (expected,) = gradient(J, R, "log", 1.0, rms(J), ["in"], watch=[("log", epsilon)])
        assert float(value) == float(expected)
        found.append(solver.R["in"])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_one_matching_step_is_the_closed_form_of_the_gradient() -> None:
    """Σ G^{∘3ᵀ} R_out J and Σ G^{∘3} (J R_inᵀ)ᵀ, up to the factor that polar does not see."""
    J, _, _ = planted(8, 10, 0, both=True)
    R = {"in": random_rotation(8, 1), "out": random_rotation(8, 2)}
    scale = rms(J)
    sums, _ = gradient(J, R, "l4", 0.1, scale, ["in", "out"])
    dense, cube = J.J.double(), rotated(J, R["in"], R["out"]).double() ** 3
    factor = -4 / (cube.numel() * scale**4)
    torch.testing.assert_close(sums["in"], factor * (cube.mT @ R["out"] @ dense).sum(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sums["out"], factor * (cube @ (dense @ R["in"].T).mT).sum(0), rtol=1e-4, atol=1e-6)


def test_equal_inputs_make_the_size_of_an_input_of_no_account() -> None:
    J, _, _ = planted(8, 6, 0)
    louder = Dense(J.J * torch.tensor([1.0, 10, 1, 1, 0.1, 3])[:, None, None])
    found = []
    for jacobians in (J, louder):
        config = SolverConfig(equal_inputs=True, n_iterations=5)
        found.append(solve(jacobians, config, random_rotation(8, 0), random_rotation(8, 1), n_polish=10)[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=0)


def test_resuming_gives_the_same_bits() -> None:
    J, _, _ = planted(12, 60, 0, both=True)
    batches = [J.rows(i, i + 10) for i in range(0, 60, 10)]
    config = SolverConfig(n_iterations=3, columns=4)
    whole, half, rest = (Solver(config, random_rotation(12, 1), random_rotation(12, 2)) for _ in range(3))
    for stop in (4, 13, 17):  # within an iteration of MSP, at its end, within the polish
        for solver in (whole, half):
            solver.state = Solver(config, random_rotation(12, 1), random_rotation(12, 2)).state
        for step in range(24):
            whole.step(batches[step % 6], step, 24)
            if step < stop:
                half.step(batches[step % 6], step, 24)
        rest.load_state({k: v.clone() for k, v in half.state.items()})
        for step in range(stop, 24):
            rest.step(batches[step % 6], step, 24)
        assert all(torch.equal(rest.state[k], whole.state[k]) for k in whole.state)


@pytest.mark.parametrize("backward", [False, True])
def test_a_chain_undoes_planted_rotations_layer_by_layer(backward: bool) -> None:
    """Hidden layers seen through rotations, inputs (or outputs) as they are: the chain finds them one after another."""
    generator = torch.Generator().manual_seed(0)
    d, n = [10, 12, 8, 9], 200
    truth = [torch.eye(d[0]), *(random_rotation(d[i], i).float() for i in (1, 2)), torch.eye(d[3])]
    layers = []
    for i in range(3):
        shape = (n, d[i + 1], d[i])
        S = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.15)
        layers.append(Dense(truth[i + 1].T @ S @ truth[i]))
    R = chain(layers, SolverConfig(n_iterations=30), backward=backward, n_polish=40)
    assert torch.equal(R[-1 if backward else 0], torch.eye(d[-1 if backward else 0], dtype=torch.float64))
    assert min(agreement(found, true) for found, true in zip(R, truth)) > 0.98


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        chain([Dense(torch.ones(1, 3, 2)), Dense(torch.ones(1, 3, 4))], SolverConfig())


def test_a_sample_of_what_is_not_separable_is_refused() -> None:
    with pytest.raises(ValueError, match="columns = 9"):
        SolverConfig(columns=9).check_columns(8)
    with pytest.raises(ValueError, match="'hoyer' of sampled columns is biased"):
        SolverConfig(objective="hoyer", columns=4).check_columns(8)


def test_agreement_does_not_see_order_and_signs() -> None:
    R = random_rotation(9, 0)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    signs = torch.tensor([1.0, -1] * 4 + [1], dtype=torch.float64)
    assert agreement(R, signs[:, None] * R[order]) == pytest.approx(1)
    null = agreement_null(9, 10)
    assert max(null) < 0.8
    assert len(set(null)) == 10


def test_measures_of_sparse_jacobians_stand_apart_from_the_null() -> None:
    J, R_in, R_out = planted(16, 30, 0, both=True)
    eye = torch.eye(16)
    true, null = measure(J, R_in, R_out), random_null(J, 2)
    assert all(true["log"] < 0.4 * n["log"] for n in null)
    assert all(true["mass_in_1%"] > 1.5 * n["mass_in_1%"] for n in null)
    assert true["log"] == pytest.approx(measure(Dense(R_out @ J.J @ R_in.T), eye, eye)["log"], rel=1e-3)
    expected = (R_out @ J.J @ R_in.T).abs() / rms(J, each=True)[:, None, None]
    torch.testing.assert_close(mean_magnitude(J, R_in, R_out), expected.double().mean(0), atol=1e-5, rtol=1e-5)


def test_an_invertible_map_recovers_what_is_not_orthogonal() -> None:
    """Sparse in oblique directions: rotations cannot reach them, unit directions under the barrier can."""
    generator = torch.Generator().manual_seed(0)
    d, n = 8, 100
    S = torch.randn(n, d, d, generator=generator) * (torch.rand(n, d, d, generator=generator) < 0.2)
    D = torch.nn.functional.normalize(torch.eye(d) + 0.2 * torch.randn(d, d, generator=generator))
    J = Dense(S @ torch.linalg.inv(D).T)  # J Dᵀ = S: the derivatives along the rows of D are sparse
    eye = torch.eye(d)
    R, _, _ = solve(J, SolverConfig(side="in", n_iterations=20), eye, eye, n_polish=100)
    found, _ = solve_invertible(J, R, eye, sides=("in",), n_steps=400)
    assert agreement(found, D) > 0.99 > agreement(R, D)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(d, dtype=torch.float64))
