"""Writing behind a loop: in order, bounded, finished before the block ends, no error lost."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from utils.machine.threads import BackgroundWriter

TIMEOUT = 20.0


class _Held:
    """Something that takes memory."""


def _wait_until_failed(writer: BackgroundWriter) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not writer._has_failed:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_calls_are_made_in_order_and_all_before_the_block_ends() -> None:
    done: list[int] = []

    def write(number: int) -> None:
        time.sleep(0.002 if number == 0 else 0)
        done.append(number)

    with BackgroundWriter() as writer:
        for number in range(20):
            writer.submit(write, number)
    assert done == list(range(20))


def test_caller_goes_on_while_a_call_is_at_work_and_waits_for_room() -> None:
    may_go, begun = threading.Event(), []

    def write(number: int) -> None:
        begun.append(number)
        assert may_go.wait(TIMEOUT)

    with BackgroundWriter(max_waiting=1) as writer:
        writer.submit(write, 0)
        writer.submit(write, 1)  # waits behind the first, the caller does not
        threading.Timer(0.2, may_go.set).start()
        writer.submit(write, 2)  # has no room before the first is done
        assert may_go.is_set() and writer.seconds_waited > 0.01
    assert begun == [0, 1, 2]


def test_no_more_is_held_than_may_wait() -> None:
    alive: list[weakref.ref[_Held]] = []
    most = 0

    def write(held: _Held) -> None:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive))

    with BackgroundWriter(max_waiting=2) as writer:
        for _ in range(30):
            held = _Held()
            alive.append(weakref.ref(held))
            writer.submit(write, held)
            del held
    # one at work, two waiting, one with the caller, and one that the thread lets go of
    assert 1 <= most <= 5
    gc.collect()
    assert not any(ref() for ref in alive)


def test_error_comes_up_at_the_next_call_and_nothing_is_done_after_it() -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError("disk full")

    writer = BackgroundWriter()
    with pytest.raises(OSError, match="disk full"), writer:
        writer.submit(fail)
        writer.submit(done.append, 1)
        _wait_until_failed(writer)
        writer.submit(done.append, 2)
        pytest.fail("the error did not come up")
    assert done == []


def test_error_of_the_last_call_comes_up_when_the_block_ends() -> None:
    class Killed(BaseException):
        pass

    def fail() -> None:
        raise Killed

    with pytest.raises(Killed), BackgroundWriter() as writer:
        writer.submit(fail)


def test_callers_own_error_is_the_one_to_tell_and_what_was_given_is_done() -> None:
    done: list[int] = []

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(ValueError, match="own"), BackgroundWriter() as writer:
        writer.submit(time.sleep, 0.01)
        writer.submit(done.append, 1)
        raise ValueError("own")
    assert done == [1]
    with pytest.raises(ValueError, match="own"), BackgroundWriter() as writer:
        writer.submit(fail)
        raise ValueError("own")


def test_writer_that_failed_works_again_in_the_next_block() -> None:
    writer, done = BackgroundWriter(), []
    with pytest.raises(ZeroDivisionError), writer:
        writer.submit(lambda: 1 // 0)
    with writer:
        writer.submit(done.append, 1)
    assert done == [1]


def test_outside_of_a_block_calls_are_made_at_once() -> None:
    done: list[int] = []
    BackgroundWriter().submit(lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]
