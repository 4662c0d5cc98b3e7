"""Rotations of a small net's layers in which their Jacobians are sparse: what one sees through them, and what they miss.

R_0 = I, then R_1, R_2, R_3 one after another: R_l J_l R_{l-1}ᵀ sparse on average over inputs. Source: Baker 2022; the parts
are what it says and the questions of its discussion. rotation, by_n_fit, starts and agreements look at one net, the saved
one where settings.model names it; the others decide over many that are trained here.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.toy.images import load_images
from pipeline.toy.mnist_rotation.bound import bounds
from pipeline.toy.mnist_rotation.descent import descent
from pipeline.toy.mnist_rotation.detailed import agreements, by_n_fit, rotation, starts
from pipeline.toy.mnist_rotation.equivalent import attacked, finetuned
from pipeline.toy.mnist_rotation.few import few
from pipeline.toy.mnist_rotation.maps import maps, objectives
from pipeline.toy.mnist_rotation.saved import load_net
from pipeline.toy.mnist_rotation.settings import QUICK as QUICK
from pipeline.toy.mnist_rotation.settings import Settings as Settings
from pipeline.toy.mnist_rotation.several import chains, few_inputs, regime
from pipeline.toy.mnist_rotation.training import regimes
from stores.manifest import bytes_digest


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: no such images, or fewer than are asked for; no such model, or one that does not read them."""
    images = load_images(settings.data, settings.seed)
    n = max(*settings.n_fit, settings.small_fit)
    if n > len(images.train_x) or settings.n_heldout > len(images.test_x):
        raise UserError(
            f"mnist-rotation: n_fit = {n} and n_heldout = {settings.n_heldout}, but {settings.data} has "
            f"{len(images.train_x)} inputs to fit to and {len(images.test_x)} held out: ask for fewer"
        )
    if not settings.model:
        return {"images": images.digest}
    load_net(Path(settings.model), settings.activation, images.train_x.shape[1])
    return {"images": images.digest, "model": bytes_digest(Path(settings.model).read_bytes())}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    measured = (
        *(chains, few_inputs, objectives, maps, descent, bounds, few, attacked, finetuned),
        *(rotation, by_n_fit, starts, agreements),
    )
    return {part.__name__: partial(part, settings) for part in measured} | {
        f"regime_{name}": partial(regime, settings, name) for name in regimes(settings)
    }
