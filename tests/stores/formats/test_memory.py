"""Folders that somebody else filled, under a limit on memory that none of them may need."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stores.manifest import json_bytes
from tests.stores.formats.making import Kind, make
from tests.stores.formats.test_strangers import BIG, Evil, npy, saved, stretched, zipped

ROOT = Path(__file__).parents[3]
WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"


def header(text: bytes, n: int | None = None) -> Callable[[Path], None]:
    return lambda folder: put(folder, WEIGHTS, (len(text) if n is None else n).to_bytes(8, "little") + text)


def put(folder: Path, name: str, data: bytes) -> None:
    (folder / name).write_bytes(data)


def tensor(name: str, x: torch.Tensor) -> Callable[[Path], None]:
    return lambda folder: save_file({**load_file(folder / WEIGHTS), name: x}, folder / WEIGHTS)


def setting(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        put(folder, CONFIG, json_bytes({**json.loads((folder / CONFIG).read_text()), **changes}))

    return change


def instead(name: str, data: Callable[[], bytes]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / CONFIG).unlink()
        (folder / WEIGHTS).unlink()
        put(folder, name, data())

    return change


def linked(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def device(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to("/dev/zero")


CLAIM = {"dtype": "F32", "shape": [BIG, BIG], "data_offsets": [0, 4 * BIG**2]}
KEY = '"w{}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
STRANGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "a header of 2^60 bytes": (header(b"{}", 2**60), "its header claims 1152921504606846976 bytes"),
    "a header of 10^6 keys": (
        header(("{" + ",".join(KEY.format(i) for i in range(BIG)) + "}").encode()),
        "bytes, expected at most 1048576",
    ),
    "a tensor of 10^12 numbers": (header(json.dumps({"W_enc": CLAIM}).encode()), "is damaged"),
    "a d_sae of 10^12": (setting(d_sae=10**12), r"expected \(8, 1000000000000\) by cfg.json"),
    "whole numbers": (tensor("b_dec", torch.zeros(8, dtype=torch.int64)), "b_dec is of I64, expected one of F64"),
    "NaN": (tensor("W_dec", torch.full((20, 8), float("nan"))), "160 of 160 numbers in W_dec are not finite"),
    "a link out of the folder": (linked, "is a link to .*elsewhere, out of its folder"),
    "a device": (device, "is no file"),
    "a path for a hook point": (setting(metadata={"hook_name": "../../x"}), "a name has no slashes"),
    "a long config": (lambda folder: put(folder, CONFIG, b"[" + b"[]," * (1 << 22)), "expected at most 4194304"),
    "a config of many lists": (
        lambda folder: put(folder, CONFIG, b'{"x":[' + b"[]," * 1_390_000 + b"0]}"),
        "cfg.json lacks architecture",
    ),
    "a pickle": (instead("a.pt", lambda: pickle.dumps(Evil())), "a.pt is a pickle"),
    "code": (instead("a.pt", lambda: saved({"W": Evil()})), "a.pt holds .*getattr.* besides tensors"),
    "a view of 10^12 numbers": (instead("a.pt", lambda: saved({"W_enc": stretched()})), "'W_enc' is of torch.float32"),
    "an array of 10^12 numbers": (
        instead("a.npz", lambda: zipped({"W_enc.npy": npy((BIG, BIG))})),
        r"W_enc.npy is of float32 and \(1000000, 1000000\) in 0 bytes",
    ),
}

LIMITED = """
import json, re, resource, sys, torch
from pathlib import Path
from stores.convert import convert
from stores.dictionary import FeatureDictionary
from stores.formats.stated import Stated

folder = Path(sys.argv[1])
sound = FeatureDictionary.load(folder / "sound")  # what is imported late, and threads, are there before the limit
convert(folder / "sound", folder / "out", "sparsify", Stated())
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (256 << 20), now + (256 << 20)))
try:
    torch.zeros(300 << 20, dtype=torch.uint8)
except RuntimeError:
    pass
else:
    sys.exit("the limit does not hold")

def check(at): return FeatureDictionary.load(at, mmap=True).check()
def read(at): return FeatureDictionary.load(at, mmap=False)
def change(at): return convert(at, folder / "changed", "sparsify", Stated())

for name, expected in json.loads((folder / "expected.json").read_text()).items():
    for use in (check, read, change):
        try:
            use(folder / name)
        except ValueError as error:
            text = str(error)
            if not re.search(expected, text) or not text.isprintable() or len(text) > 1000:
                sys.exit(f"{name}: {text[:1000]!r}")
        else:
            sys.exit(f"{name}: {use.__name__} takes it")
if (folder / "changed").exists() or Path("ran").exists():
    sys.exit("something was left")
"""


@pytest.mark.slow
def test_a_strangers_folder_is_refused_in_one_line_with_no_memory_for_what_it_claims(tmp_path: Path) -> None:
    """By load, by what checks a mapped dictionary, and by convert, in a process that may take 256 MiB more."""
    make(Kind("topk")).save(tmp_path / "sound")
    for name, (change, _) in STRANGE.items():
        make(Kind("topk")).save(tmp_path / name)
        (tmp_path / name / "provenance.json").unlink()
        change(tmp_path / name)
    (tmp_path / "expected.json").write_bytes(json_bytes({name: message for name, (_, message) in STRANGE.items()}))
    command = [sys.executable, "-c", LIMITED, str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
