"""Time to go is said when it is known; the clock is the test's."""

import contextlib
import os
import pty
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from coevo.cli.progress import ConsoleProgress
from coevo.pace import Pace, Steps


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def timed(**seconds):
    return [SimpleNamespace(name=name.replace("_", "-"), seconds_estimate=s) for name, s in seconds.items()]


@pytest.fixture
def clock():
    return Clock()


def drawn(clock, capsys, phases):
    progress = ConsoleProgress(phases, every_s=0.0, clock=clock)

    def steps(name, units, each, first=None):
        """Runs a phase; returns the lines after each step and the last one."""
        progress.phase(name, units)
        for k in range(units):
            clock.now += first if first is not None and k == 0 else each
            progress.advance()
        progress.done(name)
        return capsys.readouterr().out.splitlines()[1:]

    return progress, steps


def test_a_slow_first_step_says_nothing_of_the_run(clock, capsys):
    # 30 steps of a second, the first of which loads for 20: by its pace 13 planned minutes were 7.6 hours
    _, steps = drawn(clock, capsys, timed(sft_rpm=17.0, sft_scorer=300.0, simulator_1=500.0))
    lines = steps("sft-rpm", 30, 1.0, first=20.0)
    assert "to go" not in lines[0] and "to go" not in lines[1], "no pace yet"
    assert lines[2].endswith("· 22 s · at least 27 s to go"), "of this phase; of simulators nothing is known"
    # 49 s for planned 17: 300 planned are 865 s
    assert lines[-1].endswith("done in 49 s · at least 14 min to go")


def test_all_is_known_when_every_kind_has_been_seen(clock, capsys):
    _, steps = drawn(clock, capsys, timed(rpm_1=10.0, accept_1=5.0, rpm_2=10.0, accept_2=5.0))
    assert "to go" not in steps("rpm-1", 2, 10.0)[0]
    assert steps("accept-1", 2, 5.0)[-1].endswith("done in 10 s · about 30 s to go")
    lines = steps("rpm-2", 4, 5.0)
    # two of its steps, and the 10 s of accept-2
    assert "to go" not in lines[1] and lines[2].endswith("· about 15 s to go")
    assert lines[-1].endswith("done in 20 s · about 10 s to go")
    assert steps("accept-2", 2, 5.0)[-1].endswith("done in 10 s"), "nothing is left"


def test_without_estimates_a_kind_takes_as_long_as_before(clock, capsys):
    progress, steps = drawn(clock, capsys, timed(rpm_1=None, rpm_2=None, harvest_1=None))
    assert steps("rpm-1", 3, 10.0)[-1].endswith("done in 30 s · at least 30 s to go")
    progress.done("rpm-2")
    assert capsys.readouterr().out.strip() == "[2/3] rpm-2: done before"


def test_the_place_is_never_beyond_the_end(clock, capsys):
    progress, _ = drawn(clock, capsys, timed(rpm_1=1.0))
    progress.phase("rpm-1", 62)
    progress.advance(31, "loss 1.50")
    progress.advance(1000)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("[1/1] rpm-1 31/62 · loss 1.50") and "62/62" in lines[2]


def test_a_resumed_phase_is_not_taken_for_a_quick_one():
    # 90 of 100 steps were done before: they came in one report
    steps = Steps(100, 0.0)
    for units, now in ((90, 1.0), (1, 3.0), (1, 5.0)):
        steps.advance(units, now)
    assert steps.left(5.0) == pytest.approx(2.0 * 8)
    assert steps.left(6.0) == pytest.approx(15.0), "the clock runs while a step is under way"


def test_starting_up_is_in_no_estimate():
    # a cell that has little of its own still starts a process: an experiment of 3.5 min was said to take 14 s
    pace = Pace()
    assert pace.left([("train", 60.0)]) == (0, False)
    pace.saw(("train", 60.0), 90.0)
    pace.saw(("train", 30.0), 50.0)
    assert pace.expected(("train", 1.0)) == 50.0
    assert pace.expected(("train", 90.0)) == pytest.approx(90 * 140 / 90)
    assert pace.left([("train", 1.0), ("score", 5.0)], begun_s=7.0) == (57.0, False)


def test_a_terminal_has_a_bar_and_keeps_every_line():
    # `script` gives the child a terminal; its end is an error, after which the cursor must be there again
    code = """
import time
from types import SimpleNamespace as N
from coevo.cli.progress import ConsoleProgress
p = ConsoleProgress([N(name="01-sft-rpm", seconds_estimate=None), N(name="02-rpm-1", seconds_estimate=None)], 0.0)
p.phase("01-sft-rpm", 2)
time.sleep(0.3)  # drawn five times a second
p.advance(note="[red]0.1" + chr(27) + "[31m")
p.say("[bold]kept")
p.done("01-sft-rpm")
p.phase("02-rpm-1", 2)
raise SystemExit("the end")
"""
    leader, follower = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stdin=follower, stdout=follower, stderr=follower, check=False)
    os.close(follower)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(leader, 65536):
            shown += part
    os.close(leader)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert done.returncode == 1 and "the end" in text
    assert "[1/2] 01-sft-rpm: done in" in text and "[bold]kept" in text, "markup of a text is text"
    assert "━" in text and r"[red]0.1\x1b[31m" in text, "and so are its escapes"
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l"), "the cursor is back"
