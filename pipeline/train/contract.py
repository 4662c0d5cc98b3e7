"""What every family promises, checked on small planted data in a few seconds: check_family."""

import copy
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pipeline.train.families.base import Family, FamilyConfig
from pipeline.train.frozen import WEIGHTS
from pipeline.train.learner import FamilyLearner
from pipeline.train.ranks import ALONE, Parallel, Ranks
from pipeline.train.source import Source
from pipeline.train.stack import Stack
from pipeline.train.threads import in_threads
from stores.site import Site

READ, WRITTEN = "blocks.0.hook_resid_mid", "blocks.0.hook_mlp_out"
SITES = {
    "autoencoder": Site((READ,), (READ,)),
    "transcoder": Site((READ,), (WRITTEN,)),
    "crosscoder": Site((READ, WRITTEN), (READ, WRITTEN)),
}
_N_ROWS, _BATCH, _N_STEPS, _FEW_STEPS, _MIDDLE = 1024, 128, 24, 12, 5


class ContractError(ValueError):
    """A family does not keep what the train stage relies on."""


@dataclass(frozen=True)
class Subject:
    """A family with settings, at a site."""

    family: type[Family]
    config: FamilyConfig
    site: Site

    def learner(self, ranks: Ranks = ALONE, dtype: torch.dtype = torch.float32, **changed: Any) -> FamilyLearner:
        rows = {hook_point: planted_rows(hook_point) for hook_point in (READ, WRITTEN)}
        source = Source.of_rows(self.site, rows, ranks)
        made = FamilyLearner(self.family, self.config.model_copy(update=changed), source, "cpu")
        made.dtype = dtype
        return made

    def sides(self) -> tuple[Tensor, Tensor]:
        """(what is read, what is written), (n, d) raw rows."""
        reads, writes = (
            torch.cat([planted_rows(h) for h in side], dim=-1) for side in (self.site.reads, self.site.writes)
        )
        return reads, writes

    def batches(self, steps: range = range(_N_STEPS)) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(step, x, y) of each step."""
        x, y = self.sides()
        for step in steps:
            rows = torch.randperm(_N_ROWS, generator=torch.Generator().manual_seed(step))[:_BATCH]
            yield step, x[rows], y[rows]

    def learn(self, learner: FamilyLearner, steps: range = range(_N_STEPS)) -> list[dict[str, Tensor]]:
        ranks = learner.ranks
        part = slice(ranks.rank, None, ranks.size) if ranks.splits_rows else slice(None)
        return [learner.step(x[part], step, _N_STEPS, y[part]) for step, x, y in self.batches(steps)]


def planted_rows(hook_point: str) -> Tensor:
    """(n, 16), at what is written (n, 24): two of 32 features, with strengths in [1/2, 1], in units of their own."""
    generator = torch.Generator().manual_seed(0)
    active = torch.rand(_N_ROWS, 32, generator=generator).topk(2, dim=-1).indices
    strength = torch.zeros(_N_ROWS, 32).scatter(-1, active, 0.5 + 0.5 * torch.rand(_N_ROWS, 2, generator=generator))
    truth = {h: normalize(torch.randn(32, d, generator=generator), dim=-1) for h, d in ((READ, 16), (WRITTEN, 24))}
    x = strength @ truth[hook_point]
    return x + 3.0 if hook_point == READ else 40 * x - 7.0


def check_family(family: type[Family], config: FamilyConfig | None = None) -> None:
    """Everything that the train stage relies on. config: d_sae is best below 100; by default 50, at a rate of 1e-2.

    Raises ContractError: what is not kept, in one line.
    """
    check_declared(family)
    config = family.Config(d_sae=50, lr=1e-2) if config is None else config
    refused: dict[str, str] = {}
    once = [_check_seeds, _check_dead, _check_pure, _check_resamples, _check_frozen]  # whatever is read and written
    for kind, site in SITES.items():
        for skip in (False, True) if kind == "transcoder" else (False,):
            own = config.model_copy(update={"skip": skip})
            name = f"as {'a skip ' if skip else 'an ' if kind[0] == 'a' else 'a '}{kind}"
            try:
                own.check(site, 16 if kind != "crosscoder" else 40)
            except ValueError as error:
                refused[name] = str(error)
                continue  # it says itself that it is not for this kind of site
            subject = Subject(family, own, site)
            checks, once = [_check_dictionary, _check_resumes, *once, _check_stacks, _check_divides], []
            for check in checks:
                try:
                    check(subject)
                except ContractError as error:
                    raise ContractError(f"{family.__name__} {name}: {error}") from None
                except Exception as error:
                    what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
                    raise ContractError(
                        f"{family.__name__} {name}, in {check.__name__.removeprefix('_check_')}: {what}"
                    ) from error

    if once:
        raise ContractError(f"{family.__name__} is for no kind of site: {refused}")


def check_declared(family: type[Family]) -> None:
    """That it has its parts. Raises ContractError."""
    if not (isinstance(family, type) and issubclass(family, Family)):
        raise ContractError(f"{family!r} is no subclass of Family")
    if missing := sorted(getattr(family, "__abstractmethods__", ())):
        raise ContractError(f"{family.__name__} has no {' and no '.join(missing)}")
    settings = getattr(family, "Config", None)
    if not (inspect.isclass(settings) and issubclass(settings, FamilyConfig)):
        raise ContractError(f"{family.__name__}.Config is {settings!r}, expected a subclass of FamilyConfig")
    for name in (*family.label, *family.as_tensors):
        if name not in settings.model_fields:
            raise ContractError(f"{family.__name__} names the setting {name}, {settings.__name__} has none")


def _require(kept: bool, message: str) -> None:
    if not kept:
        raise ContractError(message)


def _check_dictionary(subject: Subject) -> None:
    """The error falls, and the dictionary on raw activations makes what training made."""
    learner = subject.learner()
    records = subject.learn(learner)
    first, last = float(records[0]["mse"]), float(records[-1]["mse"])
    _require(last < first, f"the squared error rose from {first:.4g} to {last:.4g} in {_N_STEPS} steps")
    model, (x, y) = learner.model, subject.sides()
    dictionary = learner.to_dictionary({})
    with torch.no_grad():
        parts = model(model.scaled(x), model.scaled_targets(y), model.now(_N_STEPS, _N_STEPS, False))[1]
        error = model.scaled_targets(y) - model.scaled_targets(dictionary(x))
        l0 = float((dictionary.encode(x) != 0).sum(-1).float().mean())
    tolerance = 0.3 if subject.family.by_batch else 2e-3
    for name, trained, made in (
        ("mse", float(parts["mse"]), float(error.square().sum(-1).mean())),
        ("L0", float(parts["l0"]), l0),
    ):
        _require(
            abs(trained - made) <= tolerance * max(trained, made) + 1e-4,
            f"its dictionary has {name} {made:.5g} on raw activations, training had {trained:.5g}",
        )


def _check_resumes(subject: Subject) -> None:
    """Saved and loaded in the middle, it ends with the same bits."""
    whole, half = subject.learner(), subject.learner()
    subject.learn(whole)
    subject.learn(half, range(9))
    resumed = subject.learner(dtype=torch.bfloat16)  # the arithmetic is part of the state
    resumed.load_state({name: tensor.clone() for name, tensor in half.state().items()})
    subject.learn(resumed, range(9, _N_STEPS))
    states = whole.state(), resumed.state()
    for name, tensor in states[0].items():
        _require(torch.equal(states[1][name], tensor), f"resumed in the middle, it ends with another {name}")


def _check_seeds(subject: Subject) -> None:
    """The seed and the size say where it begins."""
    start = subject.learner().model.W_dec
    _require(torch.equal(start, subject.learner().model.W_dec), "with the same seed it begins elsewhere")
    _require(
        not torch.equal(start, subject.learner(seed=1).model.W_dec), "with another seed it begins in the same place"
    )
    larger = subject.learner(d_sae=2 * subject.config.d_sae).model.W_dec[: len(start)]
    _require(not torch.equal(start, larger), "a larger one begins with the same directions")


def _check_dead(subject: Subject) -> None:
    """What did not fire is counted in tokens, whatever the size of the batches."""
    counts = []
    for size in (64, 256):
        own = subject.learner()
        silence(own.model, 24)
        for x, y in zip(*(side.split(size) for side in subject.sides()), strict=True):
            own.step(x, 0, 1, y)
        counts.append(own.model.tokens_since_fired[:24])
    kept = torch.equal(counts[0], counts[1]) and bool((counts[0] == _N_ROWS).all())
    _require(kept, f"features that are silent count {counts[0].min()} to {counts[0].max()} tokens of {_N_ROWS}")


def silence(model: Family, n: int) -> None:
    """Give the first n features an encoder that makes nothing of any row."""
    for name in ("W_enc", "b_enc") if model.biased else ("W_enc",):
        getattr(model, name).data[:n] = 0.0


def _check_pure(subject: Subject) -> None:
    """The loss is a function: the same twice, and nothing else changes."""
    learner = subject.learner()
    subject.learn(learner, range(2))
    model, (x, y) = learner.model, subject.sides()
    x, y = model.scaled(x), model.scaled_targets(y)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = (model(x, y, model.now(5, _N_STEPS, False)) for _ in range(2))
    _require(first[0].ndim == 0 and bool(first[0].isfinite()), f"loss.total is {first[0]}, expected a finite number")
    _require("mse" in first[1], 'loss.parts has no "mse"')
    _require(torch.equal(first[0], second[0]), "the same rows have another loss the second time")
    for name, tensor in model.state_dict().items():
        _require(torch.equal(before[name], tensor), f"loss changes {name}: return it from update instead")


def _check_stacks(subject: Subject) -> None:
    """In one product with others each learns what it learns alone, to the last bit."""
    changed: list[dict[str, Any]] = [{"seed": 0}, {"seed": 1}]
    for name in subject.family.as_tensors:
        value = getattr(subject.config, name)
        changed[1][name] = 1.3 * value if value is not None else 4.0
    alone, together = ([subject.learner(**own) for own in changed] for _ in range(2))
    if None in (shapes := {own.shape for own in together}) or len(shapes) > 1:
        raise ContractError(f"with other {', '.join(changed[1])} it cannot be trained in one product")
    stack = Stack(together)
    for own in alone:
        subject.learn(own, range(_FEW_STEPS))
    for step, x, y in subject.batches(range(_FEW_STEPS)):
        stack.step(x, step, _N_STEPS, y)
    for one, other in zip(alone, together, strict=True):
        for name, tensor in one.state().items():
            _require(
                torch.equal(other.state()[name], tensor), f"in one product with another it ends with another {name}"
            )


def _check_resamples(subject: Subject) -> None:
    """Dead features get new directions."""
    learner = subject.learner(resample_every_tokens=2 * _BATCH, dead_after_tokens=_BATCH)
    silence(learner.model, 8)
    subject.learn(learner, range(4))
    _require(all(bool(t.isfinite().all()) for t in learner.state().values()), "resampled, it is not finite")
    norms = learner.model.W_enc[:8].norm(dim=-1)
    _require(bool((norms > 0).all()), "resampled, dead features have no encoder rows")


def _check_frozen(subject: Subject) -> None:
    """What is frozen keeps every bit, the other side learns, and a stack ends with the same."""
    for frozen, kept in WEIGHTS.items() if not subject.family.tied else ():
        settings = {"frozen": frozen, "resample_every_tokens": None}
        alone, *together = (subject.learner(**settings, seed=seed) for seed in (0, 0, 1))
        start = {name: tensor.clone() for name, tensor in alone.state().items()}
        subject.learn(alone, range(_MIDDLE))
        stack = Stack(together)
        for step, x, y in subject.batches(range(_MIDDLE)):
            stack.step(x, step, _N_STEPS, y)
        for weights in WEIGHTS.values():
            same = torch.equal(alone.state()[f"model.{weights}"], start[f"model.{weights}"])
            _require(
                same == (weights == kept), f'frozen = "{frozen}": {weights} is {"" if same else "not "}as it began'
            )
        for name, tensor in alone.state().items():
            found = together[0].state()[name]
            _require(torch.equal(found, tensor), f'frozen = "{frozen}": in a stack it ends with another {name}')


def _check_divides(subject: Subject) -> None:
    """Two processes learn what one learns; one goes on from their checkpoint, and they from one's. After some steps: the
    sums are in another order, and features that come and go make much of that in the end."""
    ways: tuple[Parallel, ...] = ("data", "features") if subject.family.divisible else ("data",)
    one = subject.learner()
    subject.learn(one, range(_MIDDLE))
    middle = copy.deepcopy(one.state())
    subject.learn(one, range(_MIDDLE, _FEW_STEPS))
    for parallel in ways:

        def learn(ranks: Ranks, state: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
            own = subject.learner(ranks)
            if state is not None:
                own.load_state({name: own.own(name, whole) for name, whole in copy.deepcopy(state).items()})
            subject.learn(own, range(_MIDDLE) if state is None else range(_MIDDLE, _FEW_STEPS))
            state = own.state()
            return state | {name: torch.cat(ranks.gathered(state[name])) for name in own.divided(state)}

        what = f"two processes that divide {'rows' if parallel == 'data' else 'features'}"
        for state in in_threads(2, parallel, learn):
            _alike(one, learn(ALONE, state), f"from the checkpoint of {what} one ends")
        for found in in_threads(2, parallel, partial(learn, state=middle)):
            _alike(one, found, f"{what} end")


def _alike(one: FamilyLearner, state: dict[str, Tensor], message: str) -> None:
    other = one.alone()
    other.load_state(state)
    found = other.to_dictionary({}).state_dict()
    for name, tensor in one.to_dictionary({}).state_dict().items():
        _require(torch.allclose(found[name], tensor, 1e-2, 1e-3), f"{message} with another {name}")
