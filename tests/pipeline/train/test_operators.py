import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import normalize

from pipeline.train import operators
from pipeline.train.kernels import Entries, bag, dots
from pipeline.train.learner import FamilyLearner, take_step
from pipeline.train.methods import METHODS
from tests.conftest import planted_rows, source_of

N_ROWS, N, D, K = 7, 40, 6, 5


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def code() -> Entries:
    indices = random(N_ROWS, N).topk(K, dim=1).indices.sort(dim=1).values
    return Entries(random(N_ROWS * K), indices.flatten(), torch.arange(0, N_ROWS * K + 1, K))


def weights(n: int = N_ROWS, d: int = D) -> list[Tensor]:
    """A weight of rows of unit length and its moments."""
    return [normalize(random(n, d, seed=1), dim=1), *random(2, n, d, seed=2).square()]


AT = (torch.tensor(1.0), torch.tensor(1e-2), True)  # step, lr, unit
CALLS = {
    "bag": (*code(), random(N, D)),
    "dots": (random(N_ROWS, D), random(N, D), *code()[1:]),
    "encode": (random(N_ROWS, D), random(130, D), random(130, seed=1)),
    "update": (random(N_ROWS, D, seed=3), *weights(), *AT),
    "sparse_update": (*code(), random(N, D), *weights(), *AT),
}


@pytest.mark.parametrize("name", CALLS)
def test_they_say_what_they_read_and_write(name: str) -> None:
    """Fake shapes, dtypes and what is written in place are those of the real call. The first kernels were functions, which
    torch.compile breaks a graph at and fake tensors cannot pass."""
    arguments = tuple(a.clone() if isinstance(a, Tensor) else a for a in CALLS[name])
    torch.library.opcheck(getattr(operators, name).default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_codes_of_more_than_two_to_the_31_entries_have_shapes() -> None:
    n_entries, n_rows, n, d = 2**31 + 64, 2**26 + 2, 2**20, 4096
    with FakeTensorMode():
        for device in ("meta", "cuda"):
            values, indices = (
                torch.empty(n_entries, device=device),
                torch.empty(n_entries, dtype=torch.long, device=device),
            )
            own = Entries(values, indices, torch.empty(n_rows + 1, dtype=torch.long, device=device))
            for dtype in (torch.float32, torch.bfloat16):
                table = torch.empty(n, d, dtype=dtype, device=device)
                made = bag(own, table)
                assert (made.shape, made.dtype, made.device.type) == ((n_rows, d), torch.float32, device)
                found = dots(torch.empty(n_rows, d, device=device), table, own)
                assert (found.shape, found.dtype, found.device.type) == ((n_entries,), torch.float32, device)


def test_both_products_are_in_one_compiled_graph() -> None:
    """On a CPU the first dots made a sparse tensor, which no fake tensor can be."""
    own, table = code(), random(N, D)

    def there_and_back(values: Tensor) -> Tensor:
        made = own._replace(values=values)
        return dots(bag(made, table), table, made)

    compiled = torch.compile(there_and_back, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(own.values), there_and_back(own.values))


@pytest.fixture
def learner() -> FamilyLearner:
    method = METHODS["topk"]
    assert method.learner is not None
    config = method.config(**{"d_sae": 40, "k": 3, "lr": 1e-2})
    made = method.learner(config, source_of(torch.from_numpy(planted_rows(256, 24))), "cpu")
    assert isinstance(made, FamilyLearner)
    return made


def test_update_is_the_learners_step(learner: FamilyLearner) -> None:
    """Projection, Adam and unit length in one pass give what three passes gave."""
    parameters = dict(learner.model.named_parameters())
    own = {name: [parameters[name].detach().clone(), *torch.zeros(2, 40, 24)] for name in ("W_enc", "W_dec")}
    for step in range(3):
        for seed, (name, parameter) in enumerate(parameters.items()):
            parameter.grad = random(*parameter.shape, seed=10 * step + seed)
            if name in own:
                lr = torch.tensor(learner.model.now(step, 20, False).lr)
                operators.update(parameter.grad.clone(), *own[name], torch.tensor(step + 1.0), lr, name == "W_dec")
        take_step(learner, parameters, learner.optimiser, learner.model.now(step, 20, False))
    for name, (weight, mean, square) in own.items():
        state = learner.optimiser.state[parameters[name]]
        torch.testing.assert_close(weight, parameters[name].detach(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close((mean, square), (state["exp_avg"], state["exp_avg_sq"]), rtol=1e-6, atol=1e-7)


def test_sparse_update_is_the_bags_update() -> None:
    given, expected = weights(), weights()
    operators.sparse_update(*code(), random(N, D), *given, *AT)
    operators.update(operators.bag(*code(), random(N, D)), *expected, *AT)
    assert all(torch.equal(*pair) for pair in zip(given, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_k_largest_lie_in_the_groups_of_the_k_largest_maxima(dtype: torch.dtype) -> None:
    """With ties, too: bfloat16 has many. The last group is not whole."""
    k = 4
    pre, maxima = operators.encode(*(t.to(dtype) for t in (random(50, 24), random(1000, 24), random(1000, seed=1))))
    groups = maxima.topk(k, dim=1).indices
    whole = torch.nn.functional.pad(pre, (0, 24), value=-torch.inf).unflatten(1, (-1, 64))
    among = whole.gather(1, groups[..., None].expand(-1, -1, 64)).flatten(1)
    assert torch.equal(among.topk(k, dim=1).values, pre.topk(k, dim=1).values)
