"""Memory that the stages of one process share."""

from __future__ import annotations

import threading

from lakehouse.memory import SharedMemory

LIMIT = 1000


def test_a_stage_alone_has_all_of_the_limit() -> None:
    assert SharedMemory(LIMIT).take(0) == LIMIT


def test_the_stages_never_hold_more_than_the_limit_together() -> None:
    memory = SharedMemory(LIMIT, 4)
    assert [memory.take(wanted) for wanted in (400, 700, 900, 0)] == [400, 350, 125, 125]


def test_what_is_given_back_can_be_borrowed_again() -> None:
    memory = SharedMemory(LIMIT, 2)
    taken = memory.take(LIMIT)
    assert (taken, memory.take(LIMIT)) == (750, 250)
    memory.give_back(taken)
    assert memory.take(600) == 600


def test_a_small_stage_leaves_the_rest_to_the_others() -> None:
    memory = SharedMemory(LIMIT, 2)
    assert memory.take(10) == 250  # its own part, which nobody can borrow
    assert memory.take(LIMIT) == 750


def test_stages_on_threads_keep_to_the_limit() -> None:
    memory, held, peaks, lock = SharedMemory(LIMIT, 4), [0], [0], threading.Lock()

    def work(seed: int) -> None:
        for turn in range(200):
            taken = memory.take((seed * 97 + turn * 131) % LIMIT)
            with lock:
                held[0] += taken
                peaks.append(held[0])
            with lock:
                held[0] -= taken
            memory.give_back(taken)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < max(peaks) <= LIMIT
    assert memory.take(LIMIT) == LIMIT - 3 * 125
