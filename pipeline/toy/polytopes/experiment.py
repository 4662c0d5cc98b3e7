"""The polytope lens: a ReLU network is affine on each polytope of its input space, and the polytopes carry meaning.

Source: Black et al. 2022, "Interpreting Neural Networks through the Polytope Lens", and the discussion of it. A part is a
question; each lies in a file of its own.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.toy.images import load_images
from pipeline.toy.polytopes.adversarial import adversarial
from pipeline.toy.polytopes.boundaries import density, shell
from pipeline.toy.polytopes.centres import CentreSettings, centres
from pipeline.toy.polytopes.channels import ChannelSettings, channels, side_of
from pipeline.toy.polytopes.codes import codes
from pipeline.toy.polytopes.decoupled import decoupled
from pipeline.toy.polytopes.gelu import gelu
from pipeline.toy.polytopes.language import LanguageSettings, language
from pipeline.toy.polytopes.neighbours import neighbours
from pipeline.toy.polytopes.nets import N_UNSEEN
from pipeline.toy.polytopes.scaling import scaling
from stores.activations import ActivationStore
from stores.writer import StoreWriter


class Settings(CentreSettings, ChannelSettings, LanguageSettings):
    """Those of all parts."""


QUICK: dict[str, Any] = {
    "n_nets": 8, "train_steps": 150, "n_paths": 20, "path_steps": 100, "n_segments": 128, "slice_side": 60, "n_attacked": 30,
    "n_centres": (1, 4, 16), "n_own": (1, 16, 256), "n_compared": 4, "rates": (2e-2, 5e-2), "n_conv_nets": 2,
    "conv_steps": 40, "n_pictures": 500, "n_sequences": 20, "validity_sequences": 2, "factors": (0.1, 0.8, 1.0, 1.25, 10.0),
}  # fmt: skip


def inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: the images, the store or the model do not fit; see _check_images and _language_inputs."""
    return {"images": _check_images(settings), **_language_inputs(settings)}


def _check_images(settings: Settings) -> str:
    """Raises UserError: no such images; pictures that are no square, without the place that is looked at, or too few."""
    found = load_images(settings.images)
    labels = found.test_y[:N_UNSEEN].tolist()
    for digit in range(10):
        if labels.count(digit) < 2:
            raise UserError(
                f"polytopes.images: among the first {N_UNSEEN} test images {labels.count(digit)} show {digit}, expected 2 of "
                "each digit at least: paths join two of one class"
            )
    side = side_of(found.test_x.shape[1])
    if not all(0 <= place < side for place in settings.place):
        raise UserError(f"polytopes.place: {settings.place} is outside of pictures of {side} by {side}, counted from 0")
    n = len(found.train_x)
    for name in ("n_centres", "n_own"):
        asked = getattr(settings, name)
        if not 1 <= min(asked) <= max(asked) <= n:
            raise UserError(
                f"polytopes.{name}: {asked}, expected 1 to {n} each: centres are among the {n} training images"
            )
    return found.digest


def _language_inputs(settings: Settings) -> dict[str, Any]:
    """Raises UserError: no such store, or one without the hook point; no such model, or a model without it."""
    if settings.store is None:
        files = ModelFiles.find(settings.model)
        files.d(settings.hook_point)
        return {"model_digest": files.digest}
    if not StoreWriter.exists(settings.store):
        raise UserError(f"polytopes.store: no activation store at {settings.store}")
    store = ActivationStore.open(settings.store)
    if settings.hook_point not in store.hook_points:
        raise UserError(
            f"polytopes.hook_point: {settings.hook_point!r} is not in the store {settings.store}, which has "
            f"{', '.join(store.hook_points)}: set polytopes.hook_point to one of them"
        )
    return {"store_digest": store.digest}


def parts(settings: Settings, folder: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    of_settings = (codes, density, shell, neighbours, adversarial, scaling, decoupled, centres, channels, gelu)
    return {
        "language": lambda: language(settings, folder),
        **{part.__name__: partial(part, settings) for part in of_settings},
    }
