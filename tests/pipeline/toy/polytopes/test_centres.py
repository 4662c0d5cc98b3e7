"""N maps at N centres."""

import torch

from pipeline.toy.polytopes.centres import CentredMaps, nearest, own_maps, width_of
from pipeline.toy.polytopes.experiment import QUICK, Settings
from pipeline.toy.polytopes.nets import ReluNets, images_of, trained


def test_the_nearest_centres_map_reads_the_input() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(2, 5, 3, generator=generator)
    maps = CentredMaps(centres, generator)
    maps.A.data.normal_(generator=generator)
    x = torch.randn(2, 40, 3, generator=generator)
    for k in range(2):
        for row, out in zip(x[k], maps(x)[k], strict=True):
            i = int((centres[k] - row).square().sum(1).argmin())
            assert torch.allclose(maps.A[k, i] @ row + maps.c[k, i], out, atol=1e-6)
    assert maps.n_parameters == 5 * (3 + 3 * 10 + 10)


def test_the_net_beside_it_has_no_more_parameters() -> None:
    for n_parameters in (714, 3570, 13130):
        width = width_of(n_parameters, 64)
        sizes = [ReluNets.drawn(1, (64, w, w, w, 10), torch.Generator()).n_parameters for w in (width, width + 1)]
        assert sizes[0] <= n_parameters < sizes[1]
    assert width_of(13130, 64) == 64


def test_a_nets_own_maps_at_an_inputs_own_place_are_the_net() -> None:
    settings = Settings(**{**QUICK, "n_nets": 2, "train_steps": 20})
    nets, x = trained(settings), images_of(settings).train_x[:30]
    A, c = nets.affine(nets.code(x))
    which = nearest(x, x)
    assert which.tolist() == list(range(30))
    assert torch.allclose(torch.einsum("nboi,bi->nbo", A[:, which], x) + c[:, which], nets(x), atol=1e-5)


def test_more_of_a_nets_own_maps_agree_with_it_more_often() -> None:
    found = own_maps(Settings(**{**QUICK, "n_own": (1, 1000), "n_compared": 2, "train_steps": 100}))
    few, many = (sum(row["agrees"]) for row in found["rows"])
    assert many > few
    assert found["rows"][1]["n_parameters"] == 1000 * (64 + 64 * 10 + 10)
