"""The [report] table of a recipe."""

from pydantic import Field

from pipeline.config import Config


class ReportConfig(Config):
    """n_rows: held-out rows in which contexts of features are looked for. n_label_rows: of those with labels, on which
    features are probed and named. n_top, n_sampled: contexts of a feature, its strongest and others of its active tokens.
    labels: "python", or a function of yours as "file.py:function", from a text's bytes to {name: [(start, stop), …]}; "": no
    labels."""

    n_rows: int = Field(default=262_144, ge=1)
    n_label_rows: int = Field(default=16_384, ge=1)
    batch_size: int = Field(default=2048, ge=1)
    n_top: int = Field(default=20, ge=1)
    n_sampled: int = Field(default=25, ge=5)
    labels: str = "python"
