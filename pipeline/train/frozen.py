"""Controls of a dictionary: the same one, with its decoder or its encoder left as it began.

Source: Korznikov et al. 2026, "Sanity checks for sparse autoencoders", arXiv:2602.14111 (Frozen Decoder and Frozen Encoder
SAE). Only the directions are frozen: a feature's bias and threshold are learned, by which penalties reach an L0.
"""

from pipeline.train.families.base import Family, FamilyConfig

WEIGHTS: dict[str, str] = {"decoder": "W_dec", "encoder": "W_enc"}


def frozen_weights(family: type[Family], config: FamilyConfig) -> str | None:
    """The name of the parameter that is not learned, if there is one. Raises ValueError: it cannot be left as it is."""
    if config.frozen is None:
        return None
    if family.tied:
        raise ValueError(
            f'frozen = "{config.frozen}": its decoder is its encoder, nothing would be learned: leave frozen out'
        )
    if config.resample_every_tokens is not None:
        raise ValueError(
            f'frozen = "{config.frozen}" keeps the directions that resample_every_tokens = {config.resample_every_tokens} '
            f"replaces: leave one of them out"
        )
    return WEIGHTS[config.frozen]
