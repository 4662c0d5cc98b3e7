"""What the list has beyond the columns of the table."""

import base64

import numpy as np
import pyarrow as pa

from pipeline.report.parts import active_at
from tests.pipeline.report.made import lists


def test_a_feature_is_told_by_the_first_different_tokens_it_is_most_active_at() -> None:
    windows = np.array([[7, 5, 7], [7, 5, 7], [8, 9, 8], [1, 2, 3], [4, 6, 4], [4, 3, 4], [9, 1, 9]])
    contexts = pa.table({
        "feature": [0, 0, 0, 0, 2, 2, 2], "group": [0, 0, 0, 1, 0, 0, 0], "position": [11] * 7, "start": [10] * 7,
        "tokens": lists(windows),
    })  # fmt: skip
    found = active_at(contexts, 4)
    n, tokens = (np.frombuffer(base64.b64decode(found[key]["d"]), np.uint8).tolist() for key in ("n", "v"))
    assert (n, tokens) == ([2, 0, 3, 0], [5, 9, 6, 3, 1])


def test_no_contexts_are_no_tokens() -> None:
    columns = {name: pa.array([], pa.int32()) for name in ("feature", "group", "position", "start")}
    contexts = pa.table(columns | {"tokens": pa.array([], pa.list_(pa.int32()))})
    assert active_at(contexts, 2)["n"]["d"] == base64.b64encode(bytes(2)).decode()
