"""Adversarial steps have their length, and do harm."""

import torch

from pipeline.toy.polytopes.adversarial import attack
from pipeline.toy.polytopes.nets import ReluNets
from tests.pipeline.toy.polytopes.nets import inputs, random_nets


def test_a_linear_networks_worst_step_is_found() -> None:
    """Two classes, logits ± w·x: the worst step is against w, and a digit that is read with all certainty has it too."""
    w = torch.tensor([[3.0, 4.0, 0.0]], dtype=torch.double)
    open_ = [torch.eye(3, dtype=torch.double)[None], torch.cat([w, -w]).T[None]]
    biases = [torch.full((1, 1, 3), 100.0).double(), torch.tensor([[[-700.0, 700.0]]]).double()]  # every ReLU is open
    nets = ReluNets(open_, biases).requires_grad_(False)
    x = torch.tensor([[[0.1, 0.2, 0.3], [2.5, 2.5, 0.0]]]).double()
    y = torch.zeros(1, 2, dtype=torch.long)
    step = attack(nets, x, y, norm=0.5, n_steps=10)
    assert torch.allclose(step, torch.tensor([-0.3, -0.4, 0.0]).double().expand(1, 2, 3), atol=1e-6)


def test_a_step_has_its_length_and_raises_the_loss_more_than_a_random_one() -> None:
    nets, x = random_nets((7, 20, 15, 4)), inputs(2 * 40, 7).view(2, 40, 7)
    y = nets(x).argmax(2)
    step = attack(nets, x, y, norm=0.3, n_steps=10)
    random = 0.3 * torch.nn.functional.normalize(inputs(2 * 40, 7, seed=2).view(2, 40, 7), dim=2)
    assert torch.allclose(step.norm(dim=2), torch.tensor(0.3).double(), atol=1e-9)

    def loss(at: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(nets(at).flatten(0, 1), y.flatten(), reduction="none")

    assert bool((loss(x + step) > loss(x + random)).all())
