"""Dictionaries of every kind, small, with random weights."""

from dataclasses import dataclass

import torch

from stores.dictionary import FeatureDictionary
from stores.site import Site
from stores.spec import ARCHITECTURES, WITH_K, Spec

D, D_SAE, K = 8, 20, 4
SITE = Site.at("blocks.0.hook_resid_post")
MLP = Site(("blocks.0.hook_resid_mid",), ("blocks.0.hook_mlp_out",))
SEVERAL = tuple(f"blocks.{layer}.hook_resid_post" for layer in range(2))


@dataclass(frozen=True)
class Kind:
    """transcoder: of another hook point. d_out: of a transcoder that writes another number of coordinates."""

    architecture: str
    transcoder: bool = False
    skip: bool = False
    d_out: int = D
    several: bool = False

    @property
    def name(self) -> str:
        shape = " to d_out ≠ d_in" * (self.d_out != D)
        what = " transcoder" * self.transcoder + " of several hook points" * self.several
        return f"{self.architecture}{' skip' * self.skip}{what}{shape}"


KINDS = [
    *(Kind(a) for a in ARCHITECTURES if a != "bases"),
    Kind("topk", several=True),
    *(
        Kind(a, True, skip)
        for a in ("standard", "topk", "abs_topk", "jumprelu", "gated", "linear")
        for skip in (False, True)
    ),
    Kind("standard", True, d_out=6),
    Kind("bases", True),
]


def make(kind: Kind, layer: int = 0, seed: int = 0) -> FeatureDictionary:
    """d_in 8, d_sae 20, k 4"""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g) / shape[0] ** 0.5  # noqa: E731
    a, site = kind.architecture, MLP if kind.transcoder else Site(SEVERAL, SEVERAL) if kind.several else SITE
    site = Site(*(tuple(h.replace("s.0", f"s.{layer}") for h in names) for names in (site.reads, site.writes)))
    d_out = kind.d_out if kind.transcoder else None
    d_writes = (D // 2, D // 2) if kind.several else ()
    spec = Spec(a, D, D_SAE, site, K if a in WITH_K else 0, {"model": "gpt2"}, d_out, d_writes, kind.skip)
    if a == "matching_pursuit":
        W_dec = torch.nn.functional.normalize(draw(D_SAE, D))
        return FeatureDictionary(spec, None, None, W_dec, draw(D))
    others = {name: torch.rand(D_SAE, generator=g) for name in ARCHITECTURES[a]}
    others |= {"W_skip": draw(D, kind.d_out)} if kind.skip else {}
    return FeatureDictionary(spec, draw(D, D_SAE), draw(D_SAE), draw(D_SAE, kind.d_out), draw(kind.d_out), **others)


def rows(n: int = 50) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(1))
