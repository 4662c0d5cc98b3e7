"""What earlier versions of unmix wrote, in tests/stores/old: it is read as it was, or refused with the way on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stores import ActivationStore, FeatureDictionary, StoreError
from stores.description import SCHEMA_VERSION
from stores.place import place_at
from stores.verify import damage
from tests.conftest import unmix

OLD = Path(__file__).with_name("old")
HOOK = "blocks.0.hook_resid_post"


@pytest.mark.parametrize("name", sorted(path.name for path in (OLD / "dictionaries").iterdir()))
def test_a_dictionary_of_each_format_that_was_ever_written_computes_what_it_did(name: str) -> None:
    """expected.json was written by the code that wrote the dictionary."""
    dictionary = FeatureDictionary.load(OLD / "dictionaries" / name)
    expected = json.loads((OLD / "dictionaries" / name / "expected.json").read_text())
    x = torch.tensor(expected["x"])
    torch.testing.assert_close(dictionary.encode(x), torch.tensor(expected["z"]))
    if name != "bases":
        torch.testing.assert_close(dictionary(x), torch.tensor(expected["y"]))
    assert dictionary.provenance["settings"] == {"k": 2, "lr": 0.001}
    assert dictionary.site.reads[0].startswith("blocks.0.")


def test_a_store_of_each_schema_that_was_ever_written_is_here() -> None:
    """So whoever changes the schema says what becomes of the stores that people have."""
    assert {p.name for p in OLD.glob("*.zarr")} == {f"schema-{n + 1}.zarr" for n in range(SCHEMA_VERSION)}


def test_the_first_store_of_the_schema_is_read() -> None:
    store = ActivationStore.open(OLD / "schema-4.zarr")
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 100, (12, 4), dtype=np.int32)
    np.testing.assert_array_equal(store.tokens(0, 12), tokens)
    np.testing.assert_array_equal(store.rows(HOOK, 0, 36), rng.normal(size=(36, 4)).astype(np.float32))
    assert store.digest == "1e6c227e964227aa0de03a8c891c71ea98af040f006f54745e0937f51e399366"
    assert not [wrong for _, found in damage(place_at(OLD / "schema-4.zarr")) for wrong in found]


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_store_of_an_older_schema_is_refused_with_the_way_on(schema: int, tmp_path: Path) -> None:
    """Its held-out rows are others, or it does not say what its rows are."""
    message = (
        f"is of store schema {schema}, this version reads {SCHEMA_VERSION}: make it again .*unmix extract RECIPE --name"
    )
    with pytest.raises(StoreError, match=message):
        ActivationStore.open(OLD / f"schema-{schema}.zarr")
    told = unmix("verify", str(OLD / f"schema-{schema}.zarr"), cwd=tmp_path, check=False)
    assert told.returncode == 1
    assert f"is of store schema {schema}" in told.stderr
    assert "remove" not in told.stderr


def test_a_store_of_a_newer_schema_is_refused_with_the_way_on(tmp_path: Path) -> None:
    attributes = {"attributes": {"schema_version": SCHEMA_VERSION + 1}}
    (tmp_path / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(StoreError, match="install the unmix that wrote it"):
        ActivationStore.open(tmp_path)
