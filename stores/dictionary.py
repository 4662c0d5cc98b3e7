"""FeatureDictionary: what every way of learning features ends in.

    pre   = (x - b_dec) W_enc + b_enc        x: raw activations (…, d_in); z: code (…, d_sae)
    z     = activation(pre)
    x_hat = z W_dec + b_dec

A dictionary that writes something else than it reads, a transcoder (Dunefsky et al. 2024), has b_dec of what it writes, and
nothing is subtracted from x; a skip transcoder (Paulo et al. 2025) adds a linear map of x:

    pre   = x W_enc + b_enc
    y_hat = z W_dec + b_dec  [+ x W_skip]    y_hat: (…, d_out)

The activation is the architecture's: "standard" ReLU(pre); "topk" ReLU of the k largest; "abs_topk" the k of largest
magnitude with their signs (Zhu et al. 2025, arXiv:2510.00404); "jumprelu" pre where it exceeds
`threshold`, itself not negative; "gated" ReLU((pre - b_enc) exp(r_mag) + b_mag) where pre > 0; "linear" pre itself. The
architecture "matching_pursuit" has no pre: its encoder selects rows of W_dec one after another, see stores.pursuit. The
architecture "bases" is two linear dictionaries that were learned together, of the axes of what is read and of those of what
is written, and forward is not defined: see bases().

Saved as a folder in the layout of SAELens 6 (cfg.json + sae_weights.safetensors), so that what SAELens can express it
loads as it is, and provenance.json beside them: where the dictionary comes from. SAELens has no linear and bases,
no transcoders with the activations topk, abs_topk and gated, and none that read or write several hook points.
"""

from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import torch
import torch.nn.functional as F
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from stores.dictionary_files import CONFIG, PROVENANCE, WEIGHTS, Provenance, Weights, check_finite
from stores.formats.found import read, read_mapped
from stores.formats.stated import Stated
from stores.in_models import InModels
from stores.interchange import architecture_name, as_saved, config_of, digests_of, saved_name
from stores.manifest import commit_bytes, commit_json
from stores.mapped import LEAST_BYTES, Mapped
from stores.on_hub import OnHub
from stores.products import linear
from stores.pursuit import matching_pursuit
from stores.shapes import Float, Int64
from stores.site import Site
from stores.spec import DENSE, SIGNED, Spec

_CODE_NUMBERS = 1 << 24  # of float32, 64 MiB: dense codes that are held at once where the whole is not asked for


class SparseCode(NamedTuple):
    """The entries of a code that are not zero, of either sign where codes are signed, padded with value 0."""

    values: Float[Tensor, "*batch k"]
    indices: Int64[Tensor, "*batch k"]


class FeatureDictionary(InModels, OnHub, Mapped):
    """An affine encoder, an activation, an affine decoder.

    W_enc, b_enc: None of a matching pursuit, which encodes by its decoder. others: W_skip where there is one, and what
    the architecture has besides. All are kept as float32. d_out is d_in where the dictionary writes what it reads.
    Raises ValueError: a weight of another shape, one too many or too few.
    """

    def __init__(
        self,
        spec: Spec,
        W_enc: Float[Tensor, "d_in d_sae"] | None,
        b_enc: Float[Tensor, " d_sae"] | None,
        W_dec: Float[Tensor, "d_sae d_out"],
        b_dec: Float[Tensor, " d_out"],
        **others: Float[Tensor, "..."],
    ) -> None:
        super().__init__()
        self.spec = spec
        encoder = {name: weight for name, weight in (("W_enc", W_enc), ("b_enc", b_enc)) if weight is not None}
        weights = {**encoder, "W_dec": W_dec, "b_dec": b_dec, **others}
        shapes = spec.shapes
        if set(weights) != set(shapes):
            raise ValueError(f"{spec.architecture} has the weights {', '.join(shapes)}, got {', '.join(weights)}")
        for name, shape in shapes.items():
            if tuple(weights[name].shape) != shape:
                raise ValueError(f"{name} is {tuple(weights[name].shape)}, expected {shape}")
            self.register_buffer(name, weights[name].detach().clone().float().contiguous())
        self.W_enc: Float[Tensor, "d_in d_sae"]
        self.b_enc: Float[Tensor, " d_sae"]
        self.W_dec: Float[Tensor, "d_sae d_out"]
        self.b_dec: Float[Tensor, " d_out"]
        self.threshold: Float[Tensor, " d_sae"]
        self.r_mag: Float[Tensor, " d_sae"]
        self.b_mag: Float[Tensor, " d_sae"]
        self.W_skip: Float[Tensor, "d_in d_out"]

    @property
    def d_in(self) -> int:
        return self.spec.d_in

    @property
    def d_out(self) -> int:
        return self.spec.d_out or self.spec.d_in

    @property
    def d_sae(self) -> int:
        return self.spec.d_sae

    @property
    def signed(self) -> bool:
        """Whether a code may be negative, so that a direction and its opposite are the same feature."""
        return self.spec.architecture in SIGNED

    @property
    def sparse(self) -> bool:
        """Whether the architecture sets entries of a code to zero."""
        return self.spec.architecture not in DENSE

    @property
    def site(self) -> Site:
        return self.spec.site

    @property
    def hook_point(self) -> str:
        """The site's name: of an autoencoder of one hook point, the hook point."""
        return self.spec.site.name

    @property
    def provenance(self) -> Provenance:
        return self.spec.provenance

    @property
    def weights(self) -> Weights:
        """By their names, on the CPU."""
        return {name: getattr(self, name).cpu() for name in self.spec.shapes}

    @property
    def directions(self) -> Float[Tensor, "d_sae d_out"]:
        """Decoder rows of unit length; a row of zeros stays zero."""
        return nn.functional.normalize(self.W_dec, dim=-1)

    def written(self) -> dict[str, Float[Tensor, "d_sae _"]]:
        """The decoder's rows by the hook points that they are written to, {} where those have
        no names."""
        parts = self.W_dec.split(self.spec.d_writes or self.d_out, dim=-1)
        return dict(zip(self.site.writes, parts, strict=True)) if self.site.writes else {}

    def bases(self) -> "tuple[FeatureDictionary, FeatureDictionary]":
        """The two linear dictionaries of the architecture "bases": z = (x - mean) Rᵀ, x_hat = z R + mean, of what is read
        and of what is written; their rows R are orthonormal. Raises ValueError: another architecture."""
        if self.spec.architecture != "bases":
            raise ValueError(f"a dictionary of the architecture {self.spec.architecture} has no two bases")
        found = []
        for hook_points, R, mean in (
            (self.site.reads, self.W_enc.T, -self.W_enc @ self.b_enc),
            (self.site.writes, self.W_dec, self.b_dec),
        ):
            spec = Spec("linear", R.shape[1], len(R), Site(hook_points, hook_points), provenance=self.provenance)
            found.append(FeatureDictionary(spec, R.T, R.new_zeros(len(R)), R, mean))
        return found[0], found[1]

    def _centred(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_in"]:
        if x.shape[-1] != self.d_in:
            raise ValueError(f"x has {x.shape[-1]} coordinates, the dictionary takes d_in = {self.d_in}")
        return x.float() if self.spec.d_out else x.float() - self.b_dec

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """Raw activations → code."""
        if self.spec.architecture == "matching_pursuit":
            return self._pursue(self._centred(x))
        centred = self._centred(x)
        product = linear if torch.is_inference_mode_enabled() else F.linear
        pre = product(centred, self.W_enc.T, self.b_enc)
        if not self.sparse:
            return pre
        if self.spec.architecture == "topk":
            values, indices = pre.topk(self.spec.k, dim=-1)
            return torch.zeros_like(pre).scatter(-1, indices, values.relu())
        if self.spec.architecture == "abs_topk":
            values, indices = largest(pre, self.spec.k)
            return torch.zeros_like(pre).scatter(-1, indices, values)
        if self.spec.architecture == "jumprelu":
            return pre.relu() * (pre > self.threshold)
        if self.spec.architecture == "gated":
            return ((pre - self.b_enc) * self.r_mag.exp() + self.b_mag).relu() * (pre > 0)
        return pre.relu()

    def _pursue(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        spec = self.spec
        options = spec.k, spec.residual_threshold, spec.stop_on_duplicate_support
        z, start = x.new_empty(x.shape[:-1].numel(), self.d_sae), 0
        for rows in self._chunks(x):
            z[start : start + len(rows)] = matching_pursuit(rows, self.W_dec, *options)
            start += len(rows)
        return z.reshape(*x.shape[:-1], self.d_sae)

    def _chunks(self, x: Float[Tensor, "*batch d_in"]) -> tuple[Float[Tensor, "_ d_in"], ...]:
        """The rows of x, in parts whose dense codes are small."""
        return x.reshape(-1, x.shape[-1]).split(max(1, _CODE_NUMBERS // self.d_sae))

    def encode_sparse(self, x: Float[Tensor, "*batch d_in"], k: int | None = None) -> SparseCode:
        """The k entries of largest magnitude, in falling order.

        k: by default the architecture's own k; where it has none, as many as the fullest row of x has, and the dense code
        of all of x is held for it.
        """
        if k is None and not self.spec.k:
            z = self.encode(x)
            return largest(z, max(1, int((z != 0).sum(-1).max())))
        k = min(self.spec.k, self.d_sae) if k is None else k
        parts = [largest(self.encode(rows), k) for rows in self._chunks(x)]
        values, indices = (torch.cat(part).reshape(*x.shape[:-1], k) for part in zip(*parts, strict=True))
        return SparseCode(values, indices)

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_out"]:
        """Code → reconstruction; what W_skip adds is not in it."""
        return z @ self.W_dec + self.b_dec

    def decode_sparse(self, code: SparseCode) -> Float[Tensor, "*batch d_out"]:
        """decode of a code whose entries alone are there. Only the rows of W_dec that it names are read: where W_dec is in its
        file and unchecked, they are looked at for what is not finite, and not checked against its digest."""
        values, indices = (part.reshape(-1, part.shape[-1]) for part in code)
        W_dec, unchecked = cast(Tensor, self._buffers["W_dec"]), "W_dec" in self._unchecked
        y_hat = F.embedding_bag(indices, W_dec, per_sample_weights=values, mode="sum") + self.b_dec
        if unchecked:
            check_finite(self._unchecked.file, "what the rows of W_dec give", y_hat)
        return y_hat.reshape(*code.values.shape[:-1], self.d_out)

    def forward(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        """The reconstruction of x, or of what is written where x is read. Raises ValueError: bases reconstruct nothing from
        one another."""
        if self.spec.architecture == "bases":
            raise ValueError("the axes of what is read and of what is written are two dictionaries: take bases()")
        y_hat = self.decode(self.encode(x))
        return y_hat + x.float() @ self.W_skip if self.spec.skip else y_hat

    def save(self, path: Path | str) -> None:
        """Write the folder; provenance.json, written last, carries the digest of the weights."""
        path = Path(path)
        saved = {saved_name(self.spec, n): as_saved(n, weight) for n, weight in self.weights.items()}
        weights = save_tensors(saved)
        commit_bytes(path / WEIGHTS, weights)
        commit_json(path / CONFIG, config_of(self.spec))
        commit_json(path / PROVENANCE, {**self.provenance, **digests_of(saved, weights)})

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str | torch.device = "cpu",
        *,
        hook_point: str = "",
        apply_b_dec_to_input: bool | None = None,
        k: int | None = None,
        mmap: bool | None = None,
    ) -> Self:
        """Read a folder written by save, one of SAELens 6 whose options mean the same, or what another library left: see
        stores.formats.

        hook_point, apply_b_dec_to_input, k: what its files do not say, see stores.formats.stated.Stated. mmap: whether the
        weights stay in their file, so that only pages which are used are read, and each weight is checked at its first use,
        not here; None: from 128 MiB on. It can be of save's folders and of SAELens's with nothing to fold, in float32;
        others are read.
        Raises ValueError, one line that names the file: no dictionary there, one that is damaged or altered, or an option
        that this class cannot express.
        """
        stated, least = Stated(hook_point, apply_b_dec_to_input, k), LEAST_BYTES if mmap is None else 0
        try:
            if mmap is not False and (mapped := read_mapped(Path(path), stated, least)):
                spec, weights, unchecked = mapped
                empty: dict[str, Any] = {name: torch.empty(shape, device="meta") for name, shape in spec.shapes.items()}
                found = cls(spec, empty.pop("W_enc", None), empty.pop("b_enc", None), **empty).hold(weights, unchecked)
                return found if torch.device(device).type == "cpu" else found.to(device)
            spec, weights = read(Path(path), stated)
        except OSError as error:
            raise ValueError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
        encoder = weights.pop("W_enc", None), weights.pop("b_enc", None)
        return cls(spec, *encoder, **weights).to(device)

    def __repr__(self) -> str:
        where = f" at {self.hook_point}" if self.hook_point else ""
        sizes = f"d_in={self.d_in}, d_sae={self.d_sae}" + (f", d_out={self.d_out}" if self.spec.d_out else "")
        return f"FeatureDictionary({architecture_name(self.spec)}, {sizes}{where})"


def largest(z: Float[Tensor, "*batch d_sae"], k: int) -> SparseCode:
    """The k entries of largest magnitude, with their signs, in falling order of it."""
    indices = z.abs().topk(k, dim=-1).indices
    return SparseCode(z.gather(-1, indices), indices)
