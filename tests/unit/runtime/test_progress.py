"""A bar on a terminal, plain lines elsewhere."""

import io

import pytest

from ifvit.runtime import progress
from ifvit.runtime.progress import Progress, duration_text, rate_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def run(clock: Clock, total: int, seconds_each: float, initial: int = 0) -> list[str]:
    stream = io.StringIO()
    with Progress(total, "training", unit="steps", initial=initial, stream=stream) as bar:
        for step in range(initial, total):
            clock.now += seconds_each
            bar.advance(postfix_text=f"loss {step}")
    return stream.getvalue().splitlines()


def test_a_line_for_every_five_percent(clock: Clock) -> None:
    lines = run(clock, total=1000, seconds_each=0.1)
    assert len(lines) == 20
    assert lines[0] == "training: 50/1,000 steps, 10 steps/s, 0:01:35 left, loss 49"
    assert lines[-1] == "training: 1,000/1,000 steps, 10 steps/s, loss 999"


def test_a_line_every_thirty_seconds_when_five_percent_take_longer(clock: Clock) -> None:
    lines = run(clock, total=40, seconds_each=30)
    assert len(lines) == 40
    assert lines[0] == "training: 1/40 steps, 0.0333 steps/s, 0:19:30 left, loss 0"


def test_a_short_job_prints_its_end_only(clock: Clock) -> None:
    assert run(clock, total=100, seconds_each=0.001) == ["training: 100/100 steps, loss 99"]


def test_rates_are_written_out_once_there_was_time_to_measure(clock: Clock) -> None:
    assert run(clock, total=1010, seconds_each=0.4 / 1010) == ["training: 1,010/1,010 steps, loss 1009"]
    assert run(clock, total=1010, seconds_each=1 / 1000)[-1].startswith("training: 1,010/1,010 steps, 1,000 steps/s, ")
    assert [rate_text(rate) for rate in (2.46e6, 999.6, 999.4, 0.012345)] == ["2,460,000", "1,000", "999", "0.0123"]


def test_what_was_done_before_does_not_count_for_the_rate(clock: Clock) -> None:
    lines = run(clock, total=1000, seconds_each=1, initial=900)
    assert lines[0] == "training: 930/1,000 steps, 1 steps/s, 0:01:10 left, loss 929"


def test_a_resumed_job_with_nothing_to_do_prints_nothing(clock: Clock) -> None:
    assert run(clock, total=10, seconds_each=1, initial=10) == []


def test_work_that_was_taken_back_counts_again(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(100, "training", unit="steps", stream=stream) as bar:
        for _ in range(80):
            clock.now += 1
            bar.advance()
        clock.now += 60  # going back takes its time, too
        bar.go_back(70)
        for _ in range(30):
            clock.now += 1
            bar.advance()
    lines = stream.getvalue().splitlines()
    assert "training: 75/100 steps, 1 steps/s, 0:00:25 left" in lines
    assert lines[-1] == "training: 100/100 steps, 1 steps/s"


def test_a_bar_goes_back_too() -> None:
    stream = Terminal()
    with Progress(100, "training", unit="steps", stream=stream) as bar:
        bar.advance(80)
        bar.go_back(70)
        assert bar.bar is not None and bar.bar.n == 70
        bar.advance()
        assert bar.bar.n == 71


def test_lines_written_between(clock: Clock) -> None:
    stream = io.StringIO()
    with Progress(2, "shards", stream=stream) as bar:
        bar.write("shard 0 is done")
        bar.advance(2)
    assert stream.getvalue().splitlines()[0] == "shard 0 is done"


def test_a_terminal_gets_a_bar_and_whole_lines() -> None:
    stream = Terminal()
    with Progress(3, "training", unit="steps", initial=1, stream=stream) as bar:
        bar.write("a line of its own")
        bar.advance(2, "loss 0.5")
    shown = stream.getvalue()
    assert "a line of its own\n" in shown
    assert "training: 100%" in shown
    assert "3/3" in shown
    assert "loss 0.5" in shown


def test_durations() -> None:
    assert [duration_text(seconds) for seconds in (0.4, 59.6, 3600, 360_000)] == [
        "0:00:00",
        "0:01:00",
        "1:00:00",
        "100:00:00",
    ]
