import numpy as np

from pipeline.reservoir.appended import Appended


def slots(*numbers: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.array(numbers, np.int64)


def test_slots_are_handed_out_in_order_until_the_store_is_full() -> None:
    store = Appended(capacity=7)
    assert store.reserve(3).tolist() == [0, 1, 2]
    assert store.reserve(6).tolist() == [3, 4, 5, 6]
    assert store.reserve(1).size == 0


def test_complete_counts_samples_without_a_gap() -> None:
    store = Appended(capacity=5)
    store.reserve(4)
    store.commit(slots(1, 3))
    assert store.complete == 0
    store.commit(slots(0))
    assert store.complete == 2
    store.commit(slots(2))
    assert store.complete == 4


def test_a_slot_that_was_given_up_is_handed_out_again_first() -> None:
    store = Appended(capacity=5)
    store.reserve(3)
    store.cancel(slots(2, 0))
    assert store.reserve(4).tolist() == [0, 2, 3, 4]
