"""The settings that all families have."""

import re
from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config import MethodConfig
from pipeline.train.initialisation import N_ROWS, Centre, Init
from pipeline.train.whitening import Whiten
from stores.site import Site

_WRITTEN_BY_NO_MATRIX = re.compile(r"hook_embed|.*\.hook_normalized|.*\.attn\.hook_z.*")


class FamilyConfig(MethodConfig):
    """Settings that all families have. One dictionary: one value of each."""

    variants: ClassVar[tuple[str, ...]] = ("skip",)

    d_sae: int = Field(ge=1, description="Number of features.")
    seed: int = Field(default=0, ge=0, description="Of the directions to begin with, and of what resampling draws.")
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Adam's learning rate at its highest. By default 2e-4 √(2^14 / d_sae) (Gao et al. 2024), in a run of "
        "fewer than 50,000 steps times √(50,000 / steps), up to 1e-2.",
    )
    warmup: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="First part of the steps (0 to 1), over which the rate rises from 0 in a line.",
    )
    decay: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Last part of the steps (0 to 1), over which the rate falls to 0; 0 keeps it.",
    )
    decay_shape: Literal["linear", "cosine"] = Field(
        default="linear", description='How the rate falls: "linear", or "cosine", half a period of it.'
    )
    grad_clip: float | None = Field(
        default=None, gt=0, description="Largest norm of the dictionary's gradient. By default there is none."
    )
    init: Init = Field(
        default="random",
        description='Directions to begin with: "random" over the sphere, "orthogonal" (random rotations), "data" (training '
        'rows less their mean), "pca" (principal components and their opposites, then draws with the rows\' covariance), '
        '"writer" (singular vectors of the matrix that writes the hook point), "privileged" (coordinates).',
    )
    init_noise: float = Field(
        default=0.3,
        ge=0,
        description='Length of the noise added to the directions of "writer" and "privileged", of length 1.',
    )
    init_norm: float = Field(
        default=1.0,
        gt=0,
        description="Length of the encoder's rows to begin with, and of the decoder's where the family leaves them free, on "
        "activations scaled to E|x - mean|² = d_in.",
    )
    b_dec_init: Centre = Field(
        default="mean", description='Where b_dec begins: at the "mean" or the "geometric_median" of the training rows.'
    )
    dead_after_tokens: int | None = Field(
        default=None,
        ge=1,
        description="A feature is dead when it was not active in as many tokens. By default a hundredth of the run, at most "
        "10,000,000 (Gao et al. 2024).",
    )
    resample_every_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens after which dead features get new directions, again and again until the rate decays (Bricken et "
        "al. 2023). By default they never do.",
    )
    skip: bool = Field(
        default=False,
        description="Whether a linear map of what is read is learned beside the features, where nothing is both read and "
        "written (Paulo, Shabalin, Belrose 2025, arXiv:2501.18823).",
    )
    whiten: Whiten | None = Field(
        default=None,
        description='What is read and what is written are whitened, "pca" (Saraswatula, Klindt 2025, arXiv:2511.13981) or '
        f'"zca" (Bell, Sejnowski 1997), by matrices of the first {N_ROWS:,} training rows, which are folded into the weights; '
        "for one hook point on each side, and not where the decoder is the encoder. By default they are not.",
    )

    frozen: Literal["decoder", "encoder"] | None = Field(
        default=None,
        description='Which directions stay as they begin, as a control of a dictionary that learns both: W_dec, "decoder", or '
        'W_enc, "encoder" (Korznikov et al. 2026, arXiv:2602.14111). Biases and thresholds are learned. By default none stay.',
    )

    @property
    def fvu_name(self) -> str:
        return "fvu_whitened" if self.whiten else "fvu"

    def warnings(self, record: Mapping[str, float], d_in: int) -> list[str]:
        found = []
        if record["l0"] > d_in:
            found.append(f"L0 {record['l0']:.4g} is more than the {d_in} coordinates that are read: that is not sparse")
        if (fvu := record[self.fvu_name]) > 1:
            what = "whitened activations " if self.whiten else ""
            found.append(f"it reconstructs {what}worse than the mean does, FVU {fvu:.3g}: try a smaller lr")
        if 3 * record["dead"] > self.d_sae:
            found.append(f"{record['dead']:.0f} of {self.d_sae} features are dead")
        return found

    def rows_to_begin(self, d: int) -> dict[str, int]:
        found = {'init = "data"': self.d_sae} if self.init == "data" else {}
        return found | ({f'whiten = "{self.whiten}"': d} if self.whiten else {})

    def check(self, site: Site, d_in: int) -> None:
        if self.skip and (both := set(site.reads) & set(site.writes)):
            raise ValueError(f"skip = true: {min(both)} is read and written, and a linear map is all that it takes")
        if self.whiten and max(len(site.reads), len(site.writes)) > 1:
            raise ValueError(
                f'whiten = "{self.whiten}" takes one hook point read and one written: leave whiten out here'
            )
        if self.init != "writer":
            return
        if site != Site.at(site.reads[0]):
            raise ValueError('init = "writer" is for one hook point, read and written')
        if _WRITTEN_BY_NO_MATRIX.fullmatch(site.reads[0]):
            raise ValueError(f'init = "writer": no single matrix writes {site.reads[0]}')
        if site.reads == ("blocks.0.hook_resid_pre",):
            raise ValueError('init = "writer": the embedding writes there, no matrix does')
