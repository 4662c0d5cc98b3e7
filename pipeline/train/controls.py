"""What stands beside a trained dictionary, so that its scores mean something: controls of its size and sparsity.

frozen twins: all else equal, the decoder or the encoder as it began (Korznikov et al. 2026, arXiv:2602.14111).
covariance: an autoencoder whose directions are drawn with the activations' covariance, where the L0 is set (k, l0_target).
"""

from collections.abc import Iterator

from pipeline.config import MethodConfig
from pipeline.train.baselines import CovarianceConfig
from pipeline.train.families.config import FamilyConfig
from pipeline.train.frozen import WEIGHTS
from pipeline.train.methods import Method
from stores.site import Site

COVARIANCE = "covariance"


def controls(method_name: str, method: Method, config: MethodConfig, site: Site) -> Iterator[tuple[str, MethodConfig]]:
    """(method, settings) of each control of a dictionary; none of what is no family, or a control itself."""
    if method.family is None or not isinstance(config, FamilyConfig) or config.frozen:
        return
    if not method.family.tied:
        yield from ((method_name, config.model_copy(update={"frozen": side})) for side in WEIGHTS)
    k = getattr(config, "k", None) or getattr(config, "l0_target", None)
    if k and site.reads == site.writes:
        yield COVARIANCE, CovarianceConfig(d_sae=config.d_sae, k=round(k), seed=config.seed)
