"""Codes and maps taken apart: how much is in the classes that an input is put into, how much in the map of each class?

A gated linear network: its gates are the spline code of one network, its weights those of another:
    out(x) = W_L diag(s_{L-1}(x)) … diag(s_1(x)) (W_1 x + b_1) … + b_L
Source: the question is that of the discussion of Black et al. 2022. Networks of this form: Lakshminarayanan and Singh 2020.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.toy.polytopes.nets import NetSettings, ReluNets, accuracies, classify, drawn, images_of, trained, unseen

LEARNED = "codes of a trained net, maps anew"
DRAWN = "codes of an untrained net, maps anew"
ONE = "one map"


class Gated(nn.Module):
    """weights of `maps`, gates of `gates`, of the same widths; gates None: all gates are open, a linear network."""

    def __init__(self, maps: ReluNets, gates: ReluNets | None) -> None:
        super().__init__()
        self.maps, self.gates = maps, [gates]  # in a list: what gates is not trained

    def forward(self, x: Tensor) -> Tensor:
        """(n, batch, d_in) or (batch, d_in) → (n, batch, d_out)"""
        (gates,), maps = self.gates, self.maps
        h = x if x.ndim == 3 else x.expand(len(maps.weights[0]), *x.shape)
        with torch.no_grad():
            open_ = None if gates is None else gates.code(x).split(gates.widths, dim=2)
        for i, (W, b) in enumerate(zip(maps.weights, maps.biases, strict=True)):
            h = torch.baddbmm(b, h, W)
            if open_ is not None and i < len(open_):
                h = h * open_[i]
        return h


def decoupled(settings: NetSettings) -> dict[str, Any]:
    """Accuracies on unseen digits (n_nets): maps are trained from a draw of their own while the gates stay as they are.

    gains (n_nets): differences of two of them.
    """
    x, y = unseen(settings)
    whole = trained(settings)
    found = {"codes and maps": accuracies(whole, x, y)}
    for name, gates in ((LEARNED, whole), (DRAWN, drawn(settings)), (ONE, None)):
        nets = Gated(drawn(settings, "other maps"), gates)
        classify(nets, images_of(settings), settings.train_steps, settings.batch_size, settings.lr)
        found[name] = accuracies(nets, x, y)
    swapped = Gated(whole, drawn(settings, "other maps"))
    found["maps of a trained net, codes of an untrained one"] = accuracies(swapped, x, y)
    compared = {
        "the nets over one map": ("codes and maps", ONE),
        "codes of an untrained net over one map": (DRAWN, ONE),
        "codes of a trained net over those of an untrained one": (LEARNED, DRAWN),
    }
    gains = {name: [p - q for p, q in zip(found[a], found[b], strict=True)] for name, (a, b) in compared.items()}
    return {"accuracy": found, "gains": gains, "n_units": sum(settings.widths)}
