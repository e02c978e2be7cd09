"""The switches of PyTorch that would quietly narrow what was asked for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch

from hardpoint_cuda.arithmetic import _SWITCHES, EXACT, TF32, Held, read, write


@pytest.fixture(autouse=True)
def as_before():
    before = read()
    yield
    assert read() == before


def test_pytorch_rounds_float32_convolutions_to_tf32_unless_it_is_told_not_to():
    """The trap that the rest is for; it is a default of PyTorch 2.13."""
    code = "from hardpoint_cuda.arithmetic import read; print(read().conv, read().rnn, read().fp16_sums)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tf32", "tf32", "True"]


def test_a_call_computes_exactly_and_leaves_everything_as_it_was():
    before = read()
    assert before != EXACT
    with Held(EXACT):
        assert read() == EXACT
    assert read() == before
    with Held(TF32):
        assert (read().matmul, read().conv) == ("tf32", "tf32")
    # Reading PyTorch's older switches fails where the newer ones were left in a mixture.
    assert torch.backends.cudnn.allow_tf32 is True
    assert torch.backends.cuda.matmul.allow_tf32 is False


def test_an_error_inside_leaves_everything_as_it_was_too():
    before = read()
    with pytest.raises(ZeroDivisionError), Held(EXACT):
        raise ZeroDivisionError
    assert read() == before


def test_what_the_caller_wished_for_is_the_caller_s_again_afterwards():
    before = read()
    torch.set_float32_matmul_precision("high")
    try:
        assert read().matmul == "tf32"
        with Held(EXACT):
            assert read().matmul == "ieee"
        assert read().matmul == "tf32"
    finally:
        torch.set_float32_matmul_precision("highest")
        write(before)


def test_calls_that_want_the_same_go_on_side_by_side():
    inside = threading.Barrier(3, timeout=30)

    def call():
        with Held(EXACT):
            inside.wait()
            assert read() == EXACT
            inside.wait()

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()  # both are inside at once
    inside.wait()
    for thread in threads:
        thread.join()


def test_a_call_that_wants_another_setting_waits_for_the_others():
    entered, leave, seen = threading.Event(), threading.Event(), []

    def exact():
        with Held(EXACT):
            entered.set()
            leave.wait(30)
            seen.append(read())

    def tf32():
        entered.wait(30)
        with Held(TF32):
            seen.append(read())

    threads = [threading.Thread(target=exact), threading.Thread(target=tf32)]
    for thread in threads:
        thread.start()
    entered.wait(30)
    leave.set()
    for thread in threads:
        thread.join()
    assert seen == [EXACT, TF32]


def test_those_who_come_later_do_not_overtake_the_one_that_waits():
    """Else a busy server's exact calls would keep another setting out for good."""
    entered, leave, order = threading.Event(), threading.Event(), []

    def call(name, setting, *, first=False):
        with Held(setting):
            order.append((name, read() == setting))
            if first:
                entered.set()
                leave.wait(30)

    def start(*arguments, **more):
        thread = threading.Thread(target=call, args=arguments, kwargs=more)
        thread.start()
        return thread

    def until_waiting(count):
        deadline = time.monotonic() + 30
        while len(_SWITCHES.waiting) < count and time.monotonic() < deadline:
            time.sleep(0.001)

    threads = [start("first", EXACT, first=True)]
    entered.wait(30)
    for count, (name, setting) in enumerate([("second", TF32), ("third", EXACT)], 1):
        threads.append(start(name, setting))
        until_waiting(count)
    leave.set()
    for thread in threads:
        thread.join()
    assert order == [("first", True), ("second", True), ("third", True)]
