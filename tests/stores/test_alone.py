"""A dictionary without the rest: what has to be installed to load one, and ten lines that read one without unmix."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stores.spec import ARCHITECTURES
from tests.stores.formats.making import Kind, make, rows

ROOT = Path(__file__).parents[2]
ALONE = """
import sys

class Blocked:
    torchs = "torch", "torchgen", "functorch", "typing_extensions"  # its own, and what it cannot be imported without
    allowed = {*sys.stdlib_module_names, "stores", "numpy", "safetensors", *torchs}
    refused = set()

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in self.allowed:
            self.refused.add(name)
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import stores
import torch
from safetensors.torch import load_file
Blocked.refused.clear()  # what torch looks for itself

for folder in sys.argv[1:]:
    for mmap in (False, True):
        dictionary = stores.FeatureDictionary.load(folder, mmap=mmap)
        expected = load_file(folder + ".expected")
        assert torch.equal(dictionary.encode(expected["x"]), expected["z"]), dictionary
print(*Blocked.refused)
assert not set(sys.modules) & {"zarr", "transformers", "sklearn", "matplotlib", "pydantic", "pipeline"}

sys.meta_path.pop(0)
sys.modules |= {"transformers": None, "sklearn": None, "matplotlib": None, "pipeline": None}
from stores import ActivationStore, BatchLoader, write_store
"""


def test_a_dictionary_needs_torch_numpy_and_safetensors_alone(tmp_path: Path) -> None:
    folders = []
    for architecture in (a for a in ARCHITECTURES if a != "bases"):
        dictionary, folder = make(Kind(architecture)), tmp_path / architecture
        dictionary.save(folder)
        save_file({"x": rows(), "z": dictionary.encode(rows())}, f"{folder}.expected")
        folders.append(str(folder))
    done = subprocess.run([sys.executable, "-c", ALONE, *folders], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["jaxtyping"]  # which only says shapes in signatures


CODE = next(
    code
    for code in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    if "load_file" in code
)


def test_the_loader_in_the_readme_has_ten_lines_and_no_unmix() -> None:
    lines = [line for line in CODE.splitlines() if line.strip()]
    assert len(lines) == 10
    imported = set(re.findall(r"^(?:import|from) (\w+)", CODE, re.MULTILINE))
    assert imported == {"json", "torch", "safetensors"}


READ = [
    *(Kind(a) for a in ("standard", "topk", "jumprelu")),
    *(Kind(a, True, skip) for a in ("standard", "topk", "jumprelu") for skip in (False, True)),
    Kind("standard", True, d_out=6),
    Kind("topk", several=True),
]


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.name)
def test_the_loader_in_the_readme_computes_the_same(tmp_path: Path, kind: Kind) -> None:
    dictionary, x = make(kind), rows()
    dictionary.save(tmp_path)
    found = {"folder": tmp_path, "x": x}
    exec(CODE, found)
    torch.testing.assert_close(found["z"], dictionary.encode(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(found["x_hat"], dictionary(x), rtol=0, atol=1e-6)
    assert load_file(tmp_path / "sae_weights.safetensors").keys() == dictionary.weights.keys()
