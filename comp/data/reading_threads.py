"""Threads that read files and compute: few while all cores compute, more while they wait for slow files."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
SECONDS = 0.5  # after which the number of threads is looked at
BUSY = 0.7  # share of the cores' time; with less, more threads may help


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], n_cores: int, most: int
) -> Iterator[Result]:
    """Yield `work` of each item, in the order in which they end. Raise the first error.

    At first a thread works for each core. While cores idle, because files on a network answer late, the
    number of threads is doubled, up to `most`. Where files are at hand, more threads hinder each other."""
    n_threads, running = n_cores, set[Future[Result]]()
    looked, computed = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(max(n_cores, most)) as pool:
        for item in items:
            running.add(pool.submit(work, item))
            if len(running) < n_threads:
                continue
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in ended)
            seconds = time.perf_counter() - looked
            if seconds > SECONDS:
                if time.process_time() - computed < BUSY * n_cores * seconds:
                    n_threads = max(n_threads, min(most, 2 * n_threads))
                looked, computed = time.perf_counter(), time.process_time()
        yield from (future.result() for future in running)
