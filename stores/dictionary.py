"""FeatureDictionary: what every way of learning features ends in.

    pre   = (x - b_dec) W_enc + b_enc        x: raw activations (…, d_in); z: code (…, d_sae)
    z     = activation(pre)
    x_hat = z W_dec + b_dec

The activation is the architecture's: "standard" ReLU(pre); "topk" ReLU of the k largest; "jumprelu" pre where it exceeds
`threshold`, itself not negative; "gated" ReLU((pre - b_enc) exp(r_mag) + b_mag) where pre > 0; "linear" pre itself.

Saved as a folder in the layout of SAELens 6 (cfg.json + sae_weights.safetensors), so that what SAELens can express it
loads as it is, and provenance.json beside them: where the dictionary comes from.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from stores.dictionary_files import (
    CONFIG,
    PROVENANCE,
    WEIGHTS,
    Provenance,
    fold_options,
    read_config,
    read_provenance,
    read_weights,
)
from stores.manifest import bytes_digest, commit_bytes, commit_json, digest, file_digest

# architecture → weights besides W_enc, b_enc, W_dec, b_dec; each (d_sae)
OUTPUT = (
    "output"  # a folder within one's folder: the dictionary of what a layer writes, learned with that of what it reads
)
ARCHITECTURES = {"standard": (), "topk": (), "jumprelu": ("threshold",), "gated": ("r_mag", "b_mag"), "linear": ()}


class SparseCode(NamedTuple):
    """The entries of a code that are not zero: values and indices (…, k), padded with value 0."""

    values: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Spec:
    """What a dictionary is besides its weights."""

    architecture: str  # one of ARCHITECTURES; "linear" codes are signed and dense
    d_in: int
    d_sae: int
    hook_point: str = ""
    k: int = 0  # topk
    provenance: Provenance = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.architecture, str) or self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture {self.architecture!r} is not one of {', '.join(ARCHITECTURES)}")
        for name, size in (("d_in", self.d_in), ("d_sae", self.d_sae)):
            if type(size) is not int or size < 1:
                raise ValueError(f"{name} = {size!r} is not a whole number from 1 on")
        if self.architecture == "topk" and type(self.k) is not int:
            raise ValueError(f"k = {self.k!r} is not a whole number")
        if self.architecture == "topk" and not 1 <= self.k <= self.d_sae:
            raise ValueError(f"k = {self.k} is not between 1 and d_sae = {self.d_sae}")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every weight."""
        return {
            "W_enc": (self.d_in, self.d_sae),
            "b_enc": (self.d_sae,),
            "W_dec": (self.d_sae, self.d_in),
            "b_dec": (self.d_in,),
            **{name: (self.d_sae,) for name in ARCHITECTURES[self.architecture]},
        }


def _spec(path: Path, config: dict[str, Any], provenance: Provenance) -> Spec:
    metadata = config["metadata"]
    if metadata["model_name"] and not provenance:
        provenance = {"model": metadata["model_name"]}
    try:
        sizes = config["architecture"], config["d_in"], config["d_sae"]
        return Spec(*sizes, metadata["hook_name"], config.get("k", 0), provenance)
    except ValueError as error:
        raise ValueError(f"{path / CONFIG}: {error}") from None


def _saved_name(architecture: str, name: str) -> str:
    """SAELens's name of a weight."""
    return "b_gate" if architecture == "gated" and name == "b_enc" else name


def folder_digest(path: Path) -> str:
    """Of the files that say what the dictionary in a folder computes."""
    return digest([file_digest(path / CONFIG), file_digest(path / WEIGHTS)])


class FeatureDictionary(nn.Module):
    """An affine encoder, an activation, an affine decoder.

    W_enc (d_in, d_sae), b_enc (d_sae), W_dec (d_sae, d_in), b_dec (d_in), and what the architecture has besides,
    float32. Raises ValueError: a weight of another shape, one too many or too few.
    """

    def __init__(
        self, spec: Spec, W_enc: Tensor, b_enc: Tensor, W_dec: Tensor, b_dec: Tensor, **others: Tensor
    ) -> None:
        super().__init__()
        self.spec = spec
        weights = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec, "b_dec": b_dec, **others}
        shapes = spec.shapes
        if set(weights) != set(shapes):
            raise ValueError(f"{spec.architecture} has the weights {', '.join(shapes)}, got {', '.join(weights)}")
        for name, shape in shapes.items():
            if tuple(weights[name].shape) != shape:
                raise ValueError(f"{name} is {tuple(weights[name].shape)}, expected {shape}")
            self.register_buffer(name, weights[name].detach().clone().float().contiguous())
        self.W_enc: Tensor
        self.b_enc: Tensor
        self.W_dec: Tensor
        self.b_dec: Tensor
        self.threshold: Tensor
        self.r_mag: Tensor
        self.b_mag: Tensor

    @property
    def d_in(self) -> int:
        return self.spec.d_in

    @property
    def d_sae(self) -> int:
        return self.spec.d_sae

    @property
    def signed(self) -> bool:
        """Whether a code may be negative, so that a direction and its opposite are the same feature."""
        return self.spec.architecture == "linear"

    @property
    def hook_point(self) -> str:
        return self.spec.hook_point

    @property
    def provenance(self) -> Provenance:
        return self.spec.provenance

    @property
    def directions(self) -> Tensor:
        """(d_sae, d_in) decoder rows of unit length; a row of zeros stays zero."""
        return nn.functional.normalize(self.W_dec, dim=-1)

    def _pre(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_in:
            raise ValueError(f"x has {x.shape[-1]} coordinates, the dictionary takes d_in = {self.d_in}")
        return (x.float() - self.b_dec) @ self.W_enc + self.b_enc

    def encode(self, x: Tensor) -> Tensor:
        """(…, d_in) raw activations → (…, d_sae) code."""
        pre = self._pre(x)
        if self.spec.architecture == "linear":
            return pre
        if self.spec.architecture == "topk":
            values, indices = pre.topk(self.spec.k, dim=-1)
            return torch.zeros_like(pre).scatter(-1, indices, values.relu())
        if self.spec.architecture == "jumprelu":
            return pre.relu() * (pre > self.threshold)
        if self.spec.architecture == "gated":
            return ((pre - self.b_enc) * self.r_mag.exp() + self.b_mag).relu() * (pre > 0)
        return pre.relu()

    def encode_sparse(self, x: Tensor, k: int | None = None) -> SparseCode:
        """(…, d_in) → the k entries of largest magnitude, in falling order.

        k: by default TopK's own k; otherwise as many as the fullest row of x has.
        """
        z = self.encode(x)
        if k is None:
            k = self.spec.k if self.spec.architecture == "topk" else max(1, int((z != 0).sum(-1).max()))
        indices = z.abs().topk(k, dim=-1).indices
        return SparseCode(z.gather(-1, indices), indices)

    def decode(self, z: Tensor) -> Tensor:
        """(…, d_sae) code → (…, d_in) reconstruction."""
        return z @ self.W_dec + self.b_dec

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction of x."""
        return self.decode(self.encode(x))

    def save(self, path: Path | str) -> None:
        """Write the folder; provenance.json, written last, carries the digest of the weights."""
        path = Path(path)
        names = ("W_enc", "b_enc", "W_dec", "b_dec", *ARCHITECTURES[self.spec.architecture])
        weights = save_tensors({_saved_name(self.spec.architecture, name): getattr(self, name).cpu() for name in names})
        commit_bytes(path / WEIGHTS, weights)
        config = {
            "architecture": self.spec.architecture,
            "d_in": self.d_in,
            "d_sae": self.d_sae,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": True,
            "normalize_activations": "none",
            "reshape_activations": "none",
            "metadata": {"hook_name": self.hook_point, "model_name": self.provenance.get("model", "")},
        }
        if self.spec.architecture == "topk":
            config |= {"k": self.spec.k, "rescale_acts_by_decoder_norm": False}
        commit_json(path / CONFIG, config)
        commit_json(path / PROVENANCE, {**self.provenance, "weights_digest": bytes_digest(weights)})

    @classmethod
    def load(cls, path: Path | str, device: str | torch.device = "cpu") -> Self:
        """Read a folder written by save, or a SAELens 6 folder whose options mean the same.

        Raises ValueError, one line that names the file: no dictionary there, one that is damaged or altered, or an option
        that this class cannot express.
        """
        path = Path(path)
        try:
            config, provenance = read_config(path), read_provenance(path)
            spec = _spec(path, config, provenance)
            names = {_saved_name(spec.architecture, name): name for name in spec.shapes}
            shapes = {saved: spec.shapes[name] for saved, name in names.items()}
            found = read_weights(path / WEIGHTS, shapes, provenance.get("weights_digest"))
        except OSError as error:
            raise ValueError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
        weights = {names[saved]: tensor for saved, tensor in found.items()}
        fold_options(path / CONFIG, weights, config)
        return cls(spec, **weights).to(device)

    @classmethod
    def from_hub(cls, repo: str, folder: str = ".", device: str | torch.device = "cpu") -> Self:
        """Load from a folder of a Hugging Face hub repository, downloaded on first use."""
        from huggingface_hub import snapshot_download

        root = snapshot_download(repo, allow_patterns=f"{folder}/*" if folder != "." else None)
        return cls.load(Path(root) / folder, device)

    def __repr__(self) -> str:
        where = f" at {self.hook_point}" if self.hook_point else ""
        return f"FeatureDictionary({self.spec.architecture}, d_in={self.d_in}, d_sae={self.d_sae}{where})"
