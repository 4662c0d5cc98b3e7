"""What a dictionary is besides its weights."""

import math
from dataclasses import dataclass, field

from stores.dictionary_files import Provenance
from stores.site import Site

# architecture → weights besides W_enc, b_enc, W_dec, b_dec; each (d_sae)
ARCHITECTURES = {
    "standard": (),
    "topk": (),
    "abs_topk": (),
    "jumprelu": ("threshold",),
    "gated": ("r_mag", "b_mag"),
    "matching_pursuit": (),  # W_dec and b_dec alone: its encoder is its decoder
    "linear": (),
    "bases": (),
}
WITH_K = ("topk", "abs_topk", "matching_pursuit")
DENSE = ("linear", "bases")  # no activation sets entries of their codes to zero
SIGNED = ("abs_topk", *DENSE)  # entries of their codes may be negative


@dataclass(frozen=True)
class Spec:
    """What a dictionary is besides its weights.

    architecture: one of ARCHITECTURES; "linear" codes are signed and dense, and "bases" has two of them: the axes of what
    it reads and, unrelated one by one, those of what it writes. k: the most entries of a code that are not zero, of topk,
    abs_topk and matching_pursuit; of the latter how many times a latent is selected. d_out: coordinates of what it
    writes, None where it writes what it reads. d_writes: of each hook point of site.writes, d_out in all. skip: whether
    there is a W_skip. residual_threshold, stop_on_duplicate_support: when a matching pursuit ends before k, see
    stores.pursuit.
    """

    architecture: str
    d_in: int
    d_sae: int
    site: Site = field(default_factory=Site)
    k: int = 0
    provenance: Provenance = field(default_factory=dict)
    d_out: int | None = None
    d_writes: tuple[int, ...] = ()
    skip: bool = False
    residual_threshold: float = 0.0
    stop_on_duplicate_support: bool = False

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture!r} is not one of {', '.join(ARCHITECTURES)}")
        sizes = {"d_in": self.d_in, "d_sae": self.d_sae, "d_out": self.d_in if self.d_out is None else self.d_out}
        for name, size in [*sizes.items(), *(("d_writes", d) for d in self.d_writes)]:
            if size < 1:
                raise ValueError(f"{name} = {size} is less than 1")
        if self.architecture in ("topk", "abs_topk") and not 1 <= self.k <= self.d_sae:
            raise ValueError(f"k = {self.k} is not between 1 and d_sae = {self.d_sae}")
        if self.architecture not in WITH_K and self.k:
            raise ValueError(f"k = {self.k} of {self.architecture}, which has none: {', '.join(WITH_K)} have one")
        if self.architecture == "matching_pursuit":
            self._check_pursuit()
        elif self.residual_threshold or self.stop_on_duplicate_support:
            raise ValueError(f"{self.architecture} selects at once: matching_pursuit alone has a condition for its end")
        if self.d_writes and (sum(self.d_writes) != sizes["d_out"] or len(self.d_writes) != len(self.site.writes)):
            raise ValueError(
                f"d_writes = {list(self.d_writes)} are not the sizes of {len(self.site.writes)} hook points, "
                f"{sizes['d_out']} in all"
            )
        if not self.d_writes and len(self.site.writes) > 1:
            raise ValueError(f"d_writes is missing: the dictionary writes {len(self.site.writes)} hook points")
        if self.d_out is None and self.architecture == "bases":
            raise ValueError("d_out is missing: bases are of what is read and of what is written")
        if self.d_out is None and (self.skip or self.site.reads != self.site.writes):
            raise ValueError("d_out is missing: the dictionary writes something else than it reads")

    def _check_pursuit(self) -> None:
        if self.k < 1:
            raise ValueError(f"k = {self.k} is less than 1: a matching pursuit selects k times")
        if not 0 <= self.residual_threshold < math.inf:
            raise ValueError(f"residual_threshold = {self.residual_threshold} is no length: 0 for no threshold")
        if self.d_out is not None or self.skip:
            raise ValueError("a matching pursuit writes what it reads: it has no d_out and no W_skip")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight."""
        encoder = {"W_enc": (self.d_in, self.d_sae), "b_enc": (self.d_sae,)}
        return {
            **({} if self.architecture == "matching_pursuit" else encoder),
            "W_dec": (self.d_sae, self.d_out or self.d_in),
            "b_dec": (self.d_out or self.d_in,),
            **{name: (self.d_sae,) for name in ARCHITECTURES[self.architecture]},
            **({"W_skip": (self.d_in, self.d_out or self.d_in)} if self.skip else {}),
        }
