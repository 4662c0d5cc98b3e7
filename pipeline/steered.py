"""What a run's own language model says while features of one of the run's dictionaries are changed."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pipeline.config import UserError
from pipeline.models.files import ModelFiles
from pipeline.models.load import load_model
from pipeline.models.protocol import LanguageModel
from pipeline.models.reading import read_json_object
from pipeline.score.subjects import Subject
from pipeline.splicing import Splice, logits_of
from pipeline.trained import largest_of, loaded, model_files, named, place_of

LEAST_PROBABILITY = 1e-3  # of a next token that is told, with the change or without: below it most is noise
_N_TOLD = 6  # next tokens of each direction

Kind = Literal["clamp", "scale", "add"]


@dataclass(frozen=True)
class Change:
    """What becomes of a feature. value: in units of the activations; of "scale" a factor. largest: the feature's largest
    activation on held-out rows, None where it is not known. exact: whether it is more than the edge of a histogram's bin."""

    feature: int
    kind: Kind
    value: float
    largest: float | None
    exact: bool


@dataclass(frozen=True)
class Moved:
    """A next token. without, with_: its log-probability, in nats."""

    id: int
    token: str
    without: float
    with_: float


@dataclass(frozen=True)
class Steered:
    """positions: of the tokens, from 0, which is BOS. tokens: of the prompt. activations: of each feature on them, without a
    change. kl: of the next token's distribution without the change from the one with it, in nats. raised, lowered: next tokens
    whose log-probability changes most, among those with a probability of LEAST_PROBABILITY with the change or without."""

    place: str
    changes: list[Change]
    prompt: str
    positions: str
    tokens: list[str]
    activations: dict[int, list[float]]
    without: str
    with_: str
    kl: float
    raised: list[Moved]
    lowered: list[Moved]

    def as_json(self) -> dict[str, Any]:
        """Names as Python has them, but for `with`."""
        return {key.rstrip("_"): _renamed(value) for key, value in asdict(self).items()}


def _renamed(value: Any) -> Any:
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    return {str(k).rstrip("_"): _renamed(v) for k, v in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True)
class Sampling:
    """n_tokens more, each drawn at a temperature; 0: the most probable one. The same seed draws the same."""

    n_tokens: int
    temperature: float
    seed: int


def asked(features: Sequence[str], strength: float | None) -> dict[int, float]:
    """features: INDEX or INDEX=VALUE each. strength: of those without a value; None: none has one. Raises UserError."""
    found: dict[int, float] = {}
    for text in features:
        match = re.fullmatch(r"([0-9]{1,9})(?:=(.+))?", text)
        if match is None:
            raise UserError(f"feature {text!r}: expected INDEX or INDEX=VALUE, such as 12 or 12=2")
        if int(match[1]) in found:
            raise UserError(f"feature {match[1]} is named twice")
        if match[2] is not None and strength is None:
            raise UserError(f"feature {text!r}: --ablate takes no value")
        try:
            value = float(match[2] if match[2] is not None else strength or 0.0)
        except ValueError:
            raise UserError(f"feature {text!r}: {match[2]!r} is no number") from None
        if not math.isfinite(value):
            raise UserError(f"feature {text!r}: expected a finite number, got {value}")
        found[int(match[1])] = value
    return found


def steer(
    run: Path,
    name: str,
    wanted: dict[int, float],
    kind: Kind,
    raw: bool,
    prompt: str,
    positions: str | None,
    sampling: Sampling,
    device: str,
) -> Steered:
    """name: of a trained dictionary, SITE/NAME, or NAME where one site alone has it. wanted: feature → value; of "clamp" and
    "add" times the feature's largest activation, if not raw. positions: see places; by default those that the dictionary was
    trained on, which leaves BOS out.

    Raises UserError: there is no such dictionary or feature, its model is not there, or has no place for so many tokens.
    """
    subject = named(run, name)
    dictionary = loaded(subject)
    for feature in wanted:
        if feature >= dictionary.d_sae:
            raise UserError(f"feature {feature}: {place_of(subject)} has features 0 to {dictionary.d_sae - 1}")
    changes = _changes(run, subject, wanted, kind, raw)
    files, skipped = model_files(run, dictionary)
    ids = [files.bos, *files.tokenizer.encode(prompt, add_special_tokens=False).ids]
    n = len(ids) + sampling.n_tokens
    if n > files.n_positions:
        raise UserError(
            f"the prompt has {len(ids)} tokens with BOS, and {sampling.n_tokens} more are {n}: {files.name} takes "
            f"{files.n_positions}, give a shorter one, or a smaller --tokens"
        )
    where = positions or f"{skipped}:"
    splice = Splice(
        dictionary,
        keep_error=True,
        **{kind: {change.feature: change.value for change in changes}},
        positions=places(where, n),
    )
    splice.check()
    model = load_model(files, dictionary.provenance.get("weight_processing", "none"), device)
    tokens = torch.tensor([ids], device=model.device)
    captured, plain = model.forward(tokens, capture=dictionary.site.reads, logits=True)
    z = dictionary.to(device).encode(torch.cat([captured[h].float() for h in dictionary.site.reads], dim=-1))[0]
    steered = logits_of(model, tokens, splice)
    kl, raised, lowered = _moved(plain[0, -1], steered[0, -1], files.tokenizer)
    without, with_ = (
        _continued(model, ids, logits, sampling)
        for logits in (lambda t: model.forward(t, logits=True)[1], lambda t: logits_of(model, t, splice))
    )
    return Steered(
        place_of(subject), changes, prompt, where, [_text(files.tokenizer, [i]) for i in ids],
        {feature: z[:, feature].tolist() for feature in wanted}, without, with_, kl, raised, lowered,
    )  # fmt: skip


def places(text: str, n: int) -> list[int]:
    """Of n positions: "7", "3:10" from 3 to 9, "3:" from 3 on, ":10", or several with commas between. Raises UserError."""
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{0,9})(:?)([0-9]{0,9})\s*", part)
        if match is None or not (match[1] or match[2]):
            raise UserError(f"--positions {text}: expected such as 3, 3:10, 3: or 1:4,7")
        start = int(match[1] or 0)
        end = int(match[3]) if match[3] else n if match[2] else start + 1
        found |= set(range(start, min(end, n)))
    if not found:
        raise UserError(f"--positions {text}: none of the {n} positions of the prompt and what follows is meant")
    return sorted(found)


def _changes(run: Path, subject: Subject, wanted: dict[int, float], kind: Kind, raw: bool) -> list[Change]:
    known, exact = largest_of(run, subject)
    changes = []
    for feature, value in wanted.items():
        largest = known(feature)
        if kind != "scale" and value and not raw:
            if not largest:
                found = "is not known" if largest is None else "is 0 on held-out rows"
                score = f"run `unmix score` on the recipe of {run}, or " * (largest is None)
                raise UserError(
                    f"the largest activation of feature {feature} of {place_of(subject)} {found}, and the strength is in units "
                    f"of it: {score}give --raw and the strength in units of the activations"
                )
            value *= largest
        changes.append(Change(feature, kind, value, largest, exact))
    return changes


def _moved(plain: Tensor, steered: Tensor, tokenizer: Tokenizer) -> tuple[float, list[Moved], list[Moved]]:
    """Of the logits of one next token: the KL divergence, and the tokens that are raised and lowered most."""
    without, with_ = (logits.double().log_softmax(-1).cpu() for logits in (plain, steered))
    kl = float((without.exp() * (without - with_)).sum())
    by = with_ - without
    counts = torch.maximum(without, with_) >= math.log(LEAST_PROBABILITY)

    def most(sign: int) -> list[Moved]:
        order = torch.where(counts & (sign * by > 0), -sign * by, torch.inf).argsort(stable=True)[:_N_TOLD].tolist()
        meant = [i for i in order if counts[i] and sign * by[i] > 0]
        return [Moved(i, _text(tokenizer, [i]), float(without[i]), float(with_[i])) for i in meant]

    return kl, most(1), most(-1)


def _continued(model: LanguageModel, ids: list[int], logits: Callable[[Tensor], Tensor], sampling: Sampling) -> str:
    """What follows the prompt, up to the end of the document; each token by a pass of all before it."""
    files, draw, text = model.files, torch.Generator().manual_seed(sampling.seed), list(ids)
    ends = {files.bos, *_end_tokens(files)}
    for _ in range(sampling.n_tokens):
        last = logits(torch.tensor([text], device=model.device))[0, -1].float().cpu()
        if sampling.temperature:
            token = int(torch.multinomial((last / sampling.temperature).softmax(-1), 1, generator=draw))
        else:
            token = int(last.argmax())
        if token in ends:
            break
        text.append(token)
    return _text(files.tokenizer, text)[len(_text(files.tokenizer, ids)) :]


def _end_tokens(files: ModelFiles) -> list[int]:
    found = read_json_object(files.folder / "config.json").get("eos_token_id")
    return [token for token in (found if isinstance(found, list) else [found]) if type(token) is int]


def _text(tokenizer: Tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False)
