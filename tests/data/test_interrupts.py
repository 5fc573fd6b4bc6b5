"""Ctrl-C by real signals: where it is raised, where it is not, and what a process that starts meanwhile is given."""

import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from rsconvert.data.interrupts import STOPPING, blocked_interrupts, postponed_interrupts


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def press_twice(passed: list[str]) -> None:
    with postponed_interrupts() as check:
        check()
        press()
        press()
        passed.append("both")
        check()
        passed.append("never")


def press_before(error: Exception) -> None:
    with postponed_interrupts():
        press()
        raise error


def press_while_blocked(told: list[str]) -> None:
    with blocked_interrupts():
        press()
        told.append(mask_of_a_child())
    told.append("never")


def mask_of_a_child() -> str:
    """Return whether a process that starts has the signal blocked."""
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_ctrl_c_waits_for_the_check() -> None:
    passed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press_twice(passed)
    assert passed == ["both"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_raised_at_the_end_at_the_latest() -> None:
    with pytest.raises(KeyboardInterrupt), postponed_interrupts():
        press()


def test_another_error_goes_first() -> None:
    with pytest.raises(ValueError, match="mine"):
        press_before(ValueError("mine"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_callers_stays() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with postponed_interrupts() as check:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            press()
            check()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_change_nothing() -> None:
    seen = []

    def work() -> None:
        with postponed_interrupts() as check:
            seen.append(signal.getsignal(signal.SIGINT))
            check()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows has no signal mask")
def test_a_process_that_starts_meanwhile_has_ctrl_c_blocked() -> None:
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        press_while_blocked(told)
    assert (told, mask_of_a_child()) == (["True"], "False")


@pytest.mark.parametrize("number", sorted(STOPPING - {signal.SIGINT}))
@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.default_int_handler])
def test_another_request_is_taken_like_ctrl_c(number: signal.Signals, handler: Any) -> None:
    def work() -> None:
        with postponed_interrupts() as interrupts:
            passed.append(interrupts.came)
            signal.raise_signal(number)
            passed.append(interrupts.came)

    passed: list[bool] = []
    before = signal.signal(number, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
        assert passed == [False, True]
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
