import numpy as np
import torch

from pipeline.score.codes import Entries
from pipeline.score.histograms import N_BINS, ActivationHistogram, bin_edges


def codes() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(500, 12, generator=generator).exp() * (torch.rand(500, 12, generator=generator) < 0.3)
    z[:, 5] = 0
    return z


def test_counts_are_numpys() -> None:
    z = codes()
    histogram = ActivationHistogram.empty(12)
    for part in z.split(77):
        histogram.add(Entries.of(part))
    for feature in range(12):
        values = z[:, feature][z[:, feature] != 0].double().numpy()
        expected, _ = np.histogram(values, bin_edges())
        assert histogram.counts[feature].tolist() == expected.tolist()


def test_density_l0_and_quantiles() -> None:
    z = codes()
    histogram = ActivationHistogram.empty(12)
    histogram.add(Entries.of(z))
    l0 = (z != 0).sum(1)
    torch.testing.assert_close(histogram.density, (z != 0).double().mean(0))
    assert histogram.mean_l0 == float(l0.double().mean())
    assert histogram.l0_quantile(0.9) == int(np.quantile(l0.numpy(), 0.9, method="inverted_cdf"))
    assert histogram.density[5] == 0


def test_powers_of_two_fall_on_their_edge_and_extremes_in_the_last_bins() -> None:
    histogram = ActivationHistogram.empty(1)
    histogram.add(Entries.of(torch.tensor([[1.0], [-1.0], [1e-30], [1e30]])))
    place = int(np.searchsorted(bin_edges(), 1.0))
    assert histogram.counts[0, place] == 2
    assert histogram.counts[0, 0] == 1
    assert histogram.counts[0, N_BINS - 1] == 1
