"""Tied weights (Cunningham et al. 2023, arXiv:2309.08600; Sharkey, Braun, Millidge 2022): the decoder is the encoder."""

from pydantic import Field
from torch import Tensor

from pipeline.train.families.base import FamilyConfig
from pipeline.train.families.penalty import PenaltyConfig
from pipeline.train.families.relu_l1 import ReluL1
from stores.site import Site


def check_that_it_encodes_by_its_decoder(config: FamilyConfig, site: Site) -> None:
    """Raises ValueError: the settings, or the site, take an encoder and a decoder that are different."""
    if "init_norm" in config.model_fields_set:
        raise ValueError("its encoder is its decoder, whose rows are of unit length: leave init_norm out")
    if site != Site.at(site.reads[0]):
        raise ValueError("its decoder is its encoder: set hook_points, one hook point is read and written")
    if config.whiten:
        raise ValueError(
            f'whiten = "{config.whiten}" makes an encoder of its own, its decoder is its encoder: leave it out'
        )


class TiedConfig(PenaltyConfig):
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Adam's learning rate at its highest. By default three times the other families': 6e-4 √(2^14 / d_sae), in "
        "a run of fewer than 50,000 steps times √(50,000 / steps), up to 3e-2.",
    )
    l1_coefficient: float | None = Field(
        default=None,
        ge=0,
        description="λ, with the squared error summed over d_in, on activations scaled to E|x - mean|² = d_in: what the "
        "sources have times d_in / d_sae, for theirs are means over d_in and d_sae. By default 5 √(d_out / 768).",
    )

    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        check_that_it_encodes_by_its_decoder(self, site)


class Tied(ReluL1):
    """z = ReLU((x - b_dec) Wᵀ + b_enc), x_hat = z W + b_dec, rows of W of unit length; loss = |x - x_hat|² + λ Σ z_i.

    The sources leave b_dec out; here it stays, because the mean of real activations is no feature.
    """

    Config = TiedConfig
    unit_decoder = True
    tied = True

    @classmethod
    def default_lr(cls, config: FamilyConfig, n_steps: int) -> float:
        """Three times the rule: rows cannot get longer, and thresholds, in units of strengths of some √d_in, move by biases
        alone."""
        return 3 * super().default_lr(config, n_steps)

    @property
    def W_enc(self) -> Tensor:  # type: ignore[override]
        return self.W_dec
