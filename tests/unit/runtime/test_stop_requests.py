"""Signals are remembered, twice is enough, and the handlers of before come back."""

import os
import signal
import time

import pytest

from ifvit.runtime import stop_requests
from ifvit.runtime.stop_requests import StopRequests
from tests.forked_process import exit_code, forked


def test_the_first_signal_is_remembered_and_the_handlers_come_back(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopRequests(is_first_rank=True) as requests:
        assert requests.received is None
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)  # at once: the launcher's copy of the same request
        assert requests.received == signal.SIGUSR1
    assert signal.getsignal(signal.SIGUSR1) == before
    assert capsys.readouterr().err.startswith("SIGUSR1: stops and saves after this step")


def test_a_second_signal_ends_the_process() -> None:
    def work() -> None:
        stop_requests.SECONDS_OF_ONE_REQUEST = 0.1
        with StopRequests(is_first_rank=False):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.5)

    assert exit_code(forked(work)) == 128 + signal.SIGTERM


def test_the_time_counts_from_the_process_s_start() -> None:
    assert not StopRequests(False).is_out_of_time(1e9)
    age = time.monotonic() - StopRequests(False).started
    requests = StopRequests(False, max_hours=(age + 100) / 3600)
    assert not requests.is_out_of_time(50)
    assert requests.is_out_of_time(101)
