import torch

from pipeline.toy.mnist_rotation.few import _needed, counts, cut, effect
from pipeline.toy.mnist_rotation.net import Net
from pipeline.train.rotations.orthogonal import random_rotation

D = 8
H = torch.randn(20, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
R = random_rotation(D, 0)
FILL = torch.linspace(-1, 1, D, dtype=torch.float64)
MASS = torch.arange(D).double()


def test_all_kept_is_the_layer_itself_in_any_basis() -> None:
    for choice in ("axes", "input"):
        torch.testing.assert_close(cut(H, R, MASS, D, FILL, choice), H)


def test_axes_are_those_of_the_largest_mass_the_others_are_filled() -> None:
    c = cut(H, R, MASS, 3, FILL, "axes") @ R.T
    torch.testing.assert_close(c[:, 5:], (H @ R.T)[:, 5:])
    torch.testing.assert_close(c[:, :5], FILL[:5].expand(20, 5))


def test_of_each_input_the_farthest_coordinates_are_kept() -> None:
    """No other choice of as many coordinates comes nearer to the layer."""
    from itertools import combinations

    found = cut(H, R, MASS, 3, FILL, "input")
    c = H @ R.T
    for chosen in combinations(range(D), 3):
        other = FILL.expand_as(c).clone()
        other[:, chosen] = c[:, chosen]
        assert bool(((found - H).norm(dim=1) <= (other @ R - H).norm(dim=1) + 1e-9).all())


def test_what_is_not_cut_has_no_effect() -> None:
    net = Net((5, D, D, 10)).requires_grad_(False)
    hidden = net.hidden(torch.rand(30, 5, generator=torch.Generator().manual_seed(1)))
    y = hidden[-1].argmax(1)
    for site in (1, 2):
        score, same, kl = effect(net, hidden[site], site, hidden[-1], y)
        assert (score, same) == (1, 1)
        assert abs(kl) < 1e-6
        score, same, kl = effect(net, hidden[site] * 0, site, hidden[-1], y)
        assert score == same < 1
        assert kl > 0.01


def test_needed_is_the_first_count_after_the_last_loss() -> None:
    accuracies = torch.tensor([0.5, 0.95, 0.8, 0.9, 0.95, 0.95])
    assert _needed(accuracies, 0.9, [1, 2, 3, 4, 8, 12]) == 4
    assert _needed(accuracies, 0.4, [1, 2, 3, 4, 8, 12]) == 1
    assert _needed(accuracies, 0.99, [1, 2, 3, 4, 8, 12]) == 12


def test_counts_end_with_all() -> None:
    assert counts(4) == [1, 2, 3, 4]
    assert counts(64)[22:27] == [23, 24, 28, 32, 36]
    assert counts(30)[-3:] == [24, 28, 30]
