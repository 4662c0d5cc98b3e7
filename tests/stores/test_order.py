import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.order import Cursor, Layout, batch_rows, default_window_chunks, epoch_order, permutation


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    n_rows = draw(st.integers(1, 400))
    return Layout(n_rows, draw(st.integers(1, 60)), draw(st.integers(1, n_rows)), draw(st.integers(1, 12)))


@settings(deadline=None, max_examples=150)
@given(layouts(), st.integers(0, 3), st.integers(0, 2))
def test_an_epoch_holds_every_row_at_most_once_and_all_but_the_tail(layout: Layout, seed: int, epoch: int) -> None:
    rows = np.concatenate([batch_rows(Cursor(seed, epoch, step), layout) for step in range(layout.steps_per_epoch)])
    assert len(np.unique(rows)) == len(rows) == layout.steps_per_epoch * layout.batch_size
    assert rows.min() >= 0
    assert rows.max() < layout.n_rows


@settings(deadline=None, max_examples=60)
@given(layouts(), st.integers(0, 2))
def test_a_turn_touches_only_its_window_of_chunks(layout: Layout, epoch: int) -> None:
    order = epoch_order(layout, 0, epoch)
    assert order.turn_ends[-1] == layout.n_rows
    for turn in range(layout.n_chunks):
        which, offset = order.turn_rows(turn)
        assert len(order.window(turn)) == len(set(order.window(turn))) == layout.window_chunks
        assert len(which) == len(offset) == order.turn_size(turn)


def test_batches_do_not_depend_on_what_was_read_before() -> None:
    layout = Layout(1000, 64, 33, 4)
    late = batch_rows(Cursor(0, 1, 7), layout)
    epoch_order.cache_clear()
    assert np.array_equal(batch_rows(Cursor(0, 1, 7), layout), late)


def test_epochs_and_seeds_differ() -> None:
    layout = Layout(1000, 64, 100, 4)
    first = batch_rows(Cursor(0, 0, 0), layout)
    assert not np.array_equal(first, batch_rows(Cursor(0, 1, 0), layout))
    assert not np.array_equal(first, batch_rows(Cursor(1, 0, 0), layout))


def test_the_order_is_the_same_on_every_machine() -> None:
    # Written down once: another NumPy, or a change of the arithmetic, must not reorder anybody's training run.
    assert permutation(10, 3, 1, 4).tolist() == [4, 5, 0, 8, 3, 7, 6, 9, 2, 1]
    assert batch_rows(Cursor(7, 2, 3), Layout(1000, 96, 12, 3)).tolist() == [
        486,
        18,
        511,
        303,
        495,
        353,
        47,
        48,
        360,
        76,
        64,
        519,
    ]


def test_a_row_and_its_successor_share_a_batch_hardly_more_often_than_in_a_uniform_shuffle() -> None:
    layout = Layout(400_000, 4_000, 1_000, default_window_chunks(1_000, 4_000))
    batch_of = np.empty(layout.n_rows, np.int64)
    for step in range(layout.steps_per_epoch):
        batch_of[batch_rows(Cursor(0, 0, step), layout)] = step
    together = np.mean(batch_of[1:] == batch_of[:-1])
    # Uniform over the window of 64 batches, which is what a window can reach.
    assert together < 1.5 / 64


def test_out_of_range_is_refused() -> None:
    layout = Layout(100, 10, 30, 2)
    with pytest.raises(IndexError, match="3 steps"):
        batch_rows(Cursor(0, 0, 3), layout)
    with pytest.raises(ValueError, match="batch_size 101"):
        Layout(100, 10, 101, 2)
