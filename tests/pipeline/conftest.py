"""A recipe for a tiny run of all stages, and what lies in a run folder."""

import re
from pathlib import Path

import pytest

RESID, MLP = "blocks.1.hook_resid_post", "blocks.0.mlp.hook_post"


@pytest.fixture
def recipe(tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with tiny.toml, and text to read."""
    # The third of the text's five passages is held out.
    functions = (f"def walk_{i}(path):\n    return os.listdir(path)[{i}:]\n\n" for i in range(1, 1201))
    (tmp_path / "text.txt").write_text("".join(functions))
    (tmp_path / "tiny.toml").write_text(f"""# A tiny run for the tests.
[extract]
model = "{tiny_model}"
hook_points = ["{RESID}", "{MLP}"]
context = 32
n_rows = 6000
chunk_rows = 310
shard_chunks = 2
batch_sequences = 5
heldout_fraction = 0.1
dtype = "float32"
text = {{ source = "files", path = "text.txt" }}
[train]
batch_size = 128
n_tokens = 12_800
checkpoint_every_steps = 20
[train.topk]
d_sae = [48, 64]
k = 4
seed = [0, 1]
lr = 5e-3
dead_after_tokens = 2000
[train.relu_l1]
d_sae = 48
seed = [0, 1]
[train.rotation]
n_iterations = 6
[train.neuron_basis]
[train.random]
[train.pca]
n_rows = 2000
[score]
n_sequences = 8
at_l0 = [4]
""")
    return tmp_path


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.rglob("*") if p.is_file()
    }


def contents(files: dict[str, tuple[int, bytes]]) -> dict[str, bytes]:
    """What a store's files say, by name; not which process wrote them, nor what dead ones left."""
    kept = {k: v for k, (_, v) in files.items() if ".partial" not in k and not k.startswith(("attempts/", "leases/"))}
    return {k: re.sub(rb'"attempt": "[^"]*"', b"", v) if k.startswith("commits/") else v for k, v in kept.items()}
