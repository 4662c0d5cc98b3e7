"""The [score] table of a recipe."""

from pydantic import Field, PositiveInt

from pipeline.config import Config


class ForeignDictionary(Config):
    """path: of a dictionary, whosever, or of a folder with several. The others say what its files do not: hook_point, of a
    transcoder READS--WRITES, {layer} in it what its path says; apply_b_dec_to_input: whether b_dec is subtracted from what
    is encoded; k: of a TopK dictionary."""

    path: str
    hook_point: str = ""
    apply_b_dec_to_input: bool | None = None
    k: PositiveInt | None = None


class ScoreConfig(Config):
    """n_rows: held-out rows that the codes are measured on. n_sequences: held-out sequences for the CE scores.
    at_l0: how many coordinates of a linear dictionary's code are kept, to compare it with sparse ones.
    dictionaries: folders of others to score beside the recipe's own, autoencoders and transcoders; a table for one of which
    something is to be stated."""

    n_rows: int = Field(default=1_000_000, ge=1)
    n_sequences: int = Field(default=64, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    at_l0: tuple[PositiveInt, ...] = (8, 16, 32, 64)
    ultra_low_density: float = Field(default=1e-5, gt=0, lt=1)
    dictionaries: tuple[str | ForeignDictionary, ...] = ()

    @property
    def foreign(self) -> list[ForeignDictionary]:
        return [ForeignDictionary(path=one) if isinstance(one, str) else one for one in self.dictionaries]
