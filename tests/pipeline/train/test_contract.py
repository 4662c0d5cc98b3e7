"""check_family: every family keeps it, and it finds what a family breaks."""

import pytest
import torch

from pipeline.train.contract import ContractError, check_family
from pipeline.train.families import Dense, Family, FamilyConfig, Loss, Now
from pipeline.train.families.relu_l1 import ReluL1, ReluL1Config
from pipeline.train.families.topk import TopK, TopKConfig
from pipeline.train.source import Source
from stores.site import Site
from tests.pipeline.train.test_families import CASES


@pytest.mark.parametrize(("family", "config"), CASES)
def test_every_family_keeps_the_contract(family: type[Family], config: FamilyConfig) -> None:
    check_family(family, config)


class Forgets(ReluL1):
    """What it learns from is not in its state."""

    seen = 0

    def loss(self, x: torch.Tensor, y: torch.Tensor, now: Now) -> Loss:
        self.seen += 1
        found = super().loss(x, y, now)
        return Loss(found.total * (1 + 0.1 * (self.seen % 7)), found.code, found.parts)


class Writes(ReluL1):
    """It changes a buffer in its loss."""

    def loss(self, x: torch.Tensor, y: torch.Tensor, now: Now) -> Loss:
        self.coefficient.mul_(0.99)
        return super().loss(x, y, now)


class Climbs(ReluL1):
    def loss(self, x: torch.Tensor, y: torch.Tensor, now: Now) -> Loss:
        found = super().loss(x, y, now)
        return Loss(-found.total, found.code, found.parts)


class TooLate(ReluL1):
    """A setting that is said to be a tensor is read as a number."""  # the coefficient's warm-up

    as_tensors = ("l1_coefficient", "l0_target", "penalty_warmup")


class OverTheBatch(TopK):
    """The loss is no mean over rows."""

    def loss(self, x: torch.Tensor, y: torch.Tensor, now: Now) -> Loss:
        found = super().loss(x, y, now)
        return Loss(found.total * y.square().mean(0).amax(), found.code, found.parts)


class OwnProducts(ReluL1):
    """Its sums over features are its own part's alone, and it does not say so."""

    def loss(self, x: torch.Tensor, y: torch.Tensor, now: Now) -> Loss:
        z = (x @ self.W_enc.T + self.b_enc).relu()
        mse = (y - z @ self.W_dec).square().sum(-1).mean()
        return Loss(mse, Dense(z), {"mse": mse})


class SaysNothing(ReluL1):
    def loss(self, x: torch.Tensor, y: torch.Tensor, now: Now) -> Loss:
        found = super().loss(x, y, now)
        return Loss(found.total, found.code, {})


class Unstarted(TopK):
    """It asks for a setting that it has not."""

    label = {"nothing": "n"}  # noqa: RUF012


class OfMaps(TopKConfig):
    def check(self, site: Site, d_in: int) -> None:
        super().check(site, d_in)
        if site.reads == site.writes:
            raise ValueError("it is for transcoders")


class ForTranscoders(TopK):
    Config = OfMaps


def test_a_family_for_transcoders_alone_is_held_to_the_rest() -> None:
    check_family(ForTranscoders, OfMaps(d_sae=48, k=4, lr=1e-2))


class ForNothing(OfMaps):
    def check(self, site: Site, d_in: int) -> None:
        raise ValueError("it is for nothing")


class HasAnother(ReluL1):
    """A matrix of its own, of a row for each feature."""

    def __init__(self, config: ReluL1Config, source: Source) -> None:
        super().__init__(config, source)
        self.W_more = torch.nn.Parameter(torch.ones(self.d_sae, 3))


def test_a_parameter_of_its_own_is_resampled_to_where_it_began() -> None:
    check_family(HasAnother, ReluL1Config(d_sae=48, l1_coefficient=0.5, lr=1e-2))


class FailsElsewhere(ReluL1):
    def loss(self, x: torch.Tensor, y: torch.Tensor, now: Now) -> Loss:
        if self.products.ranks.rank == 1:
            raise ValueError("the true reason")
        return super().loss(x, y, now)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (FailsElsewhere, "the true reason"),
        (Forgets, "ends with another"),
        (Writes, "mul_|loss changes coefficient|another"),
        (Climbs, "the squared error rose"),
        (TooLate, "in one product"),
        (OverTheBatch, "divide rows"),
        (OwnProducts, "divide features"),
        (SaysNothing, "mse"),
        (Unstarted, "names the setting nothing, TopKConfig has none"),
        (Family, "has no loss and no to_dictionary"),
        (int, "is no subclass of Family"),
    ],
)
def test_what_a_family_breaks_is_found(family: type, message: str) -> None:
    made = {TopK: TopKConfig(d_sae=48, k=4, lr=1e-2), ReluL1: ReluL1Config(d_sae=48, l1_coefficient=0.5, lr=1e-2)}
    config = next((made[base] for base in made if issubclass(family, base)), None)
    with pytest.raises(ContractError, match=message):
        check_family(family, config)
