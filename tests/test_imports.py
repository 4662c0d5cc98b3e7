"""The design's one-way imports, read from the source."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = {  # a heavy library → the files that may import it when they are imported themselves
    "transformers": set(),
    "transformer_lens": set(),
    "datasets": set(),
    "matplotlib": {f"pipeline/{stage}/pictures.py" for stage in ("score", "toy", "train")},
    "jinja2": {"pipeline/toy/page.py"},
    "rich": {"pipeline/tables.py", "pipeline/status_table.py"},
    "sklearn": set(),
    "triton": {f"pipeline/train/triton/{file}.py" for file in ("bag", "dots", "encode", "parts", "update")},
    "zarr": set(),
}
FORBIDDEN = [  # (below this, no import of that)
    ("stores", "pipeline"),
    ("pipeline/extract", "pipeline.train"),
    ("pipeline/extract", "pipeline.score"),
    ("pipeline/train", "pipeline.extract"),
    ("pipeline/train", "pipeline.score"),
    ("pipeline/score", "pipeline.train"),
    ("pipeline/score", "pipeline.extract"),
    *(("pipeline/models", f"pipeline.{stage}") for stage in ("extract", "train", "score", "toy", "stages", "recipe")),
    ("pipeline/extract", "pipeline.toy"),
    ("pipeline/train", "pipeline.toy"),
    ("pipeline/score", "pipeline.toy"),
    ("pipeline/extract", "pipeline.stages"),
    ("pipeline/train", "pipeline.stages"),
    ("pipeline/score", "pipeline.stages"),
    ("pipeline/score", "pipeline.report"),
    ("pipeline/score", "pipeline.features"),
    *(("pipeline/features", f"pipeline.{s}") for s in ("extract", "train", "report", "toy", "stages", "recipe")),
    *(("pipeline/report", f"pipeline.{stage}") for stage in ("extract", "train", "toy", "stages", "recipe")),
]


@cache
def imports(path: Path, *, nested: bool) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if nested else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def sources() -> list[Path]:
    return [path for package in ("pipeline", "stores") for path in (ROOT / package).rglob("*.py")]


def test_imports_go_one_way() -> None:
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for module in imports(path, nested=True):
            for folder, forbidden in FORBIDDEN:
                assert not (name.startswith(f"{folder}/") and module.startswith(forbidden)), f"{name} imports {module}"


def test_heavy_libraries_are_imported_late_or_in_one_file() -> None:
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        for module in imports(path, nested=False):
            library = module.split(".")[0]
            assert name in HEAVY.get(library, {name}), f"{name} imports {library} at its top"


def test_the_stores_look_for_the_pipeline_in_one_place() -> None:
    """By its name, where a dictionary is asked to stand in a model: no import is needed to read what is kept."""
    found = {
        path.relative_to(ROOT).as_posix(): node.value
        for path in (ROOT / "stores").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and str(node.value).startswith("pipeline.")
    }
    assert found == {"stores/in_models.py": "pipeline.splicing"}


def importers(name: str, *, nested: bool) -> set[str]:
    """The files that import it, or anything in it."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if any(f"{module}.".startswith(f"{name}.") for module in imports(path, nested=nested))
    }


def test_transformer_lens_is_imported_late_and_in_one_file() -> None:
    """It takes seconds, and only models that are no GPT-2 need it."""
    assert importers("transformer_lens", nested=True) == {"pipeline/models/lens.py"}
    assert importers("pipeline.models.lens", nested=True) == {
        "pipeline/models/hugging_face.py",
        "pipeline/models/listening.py",
    }
    assert importers("pipeline.models.hugging_face", nested=False) == set()


def test_submitit_is_imported_late_and_in_one_file() -> None:
    """Only who submits needs it."""
    assert importers("submitit", nested=True) == {"pipeline/cluster/slurm.py"}
    assert importers("submitit", nested=False) == set()


def test_huggingface_hub_is_imported_late_and_in_one_file() -> None:
    """Only who has something on the hub needs it."""
    assert importers("huggingface_hub", nested=True) == {"stores/hub.py"}
    assert importers("huggingface_hub", nested=False) == set()


def test_no_imports_go_in_a_circle() -> None:
    """Also of those inside functions."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sources()}
    graph = {
        name: {
            found
            for module in imports(path, nested=True)
            for found in (module, module.rpartition(".")[0])
            if found in names
        }
        for name, path in names.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_file_is_longer_than_300_lines() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): n for path in sources() if (n := len(path.read_text().splitlines())) > 300
    }
    assert not long
