"""As many threads as keep the cores busy."""

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from comp.data.reading_threads import in_threads

N_CORES, MOST = 2, 8


def most_at_once(work: Callable[[], object], n: int) -> int:
    """Return how many threads worked at once at most, on n items."""
    counted, now, most = threading.Lock(), 0, 0

    def counting(item: int) -> int:
        nonlocal now, most
        with counted:
            now += 1
            most = max(most, now)
        work()
        with counted:
            now -= 1
        return item

    assert sorted(in_threads(counting, range(n), N_CORES, MOST)) == list(range(n))
    return most


def test_threads_are_added_while_files_answer_late():
    assert most_at_once(lambda: time.sleep(0.1), 100) == MOST


def test_a_thread_for_each_core_where_all_of_them_compute(monkeypatch: pytest.MonkeyPatch):
    clock = time.perf_counter
    monkeypatch.setattr(time, "process_time", lambda: 0.9 * N_CORES * clock())
    assert most_at_once(lambda: time.sleep(0.1), 40) == N_CORES


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_items(n: int):
    assert most_at_once(lambda: np.zeros(3), n) <= n


def test_the_first_error_is_raised_and_nothing_more_is_begun():
    begun = []

    def fails(item: int) -> None:
        begun.append(item)
        raise OSError(item)

    with pytest.raises(OSError, match="0|1"):
        list(in_threads(fails, range(50), N_CORES, MOST))
    assert len(begun) <= N_CORES
