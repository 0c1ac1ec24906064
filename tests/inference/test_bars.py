"""Bars where no one watches: a line now and then, and none of a run that is short."""

import sys

import pytest

from posterior_inpainting.inference import bars


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    return now


def count(clock, seconds, steps=50):
    with bars.progress_bar(total=steps, desc="counting") as bar:
        for step in range(steps):
            clock[0] += seconds / steps
            bar.update()
            bar.set_description(f"at {step}")


def test_a_line_every_ten_seconds_and_one_at_the_end(clock, capsys):
    count(clock, 45.0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("at ") and "\r" not in line for line in lines)
    assert "50/50" in lines[-1]


def test_a_short_run_says_nothing(clock, capsys):
    count(clock, 9.0)
    assert capsys.readouterr().err == ""


def test_a_process_that_knows_of_notebooks_is_none(clock, capsys):
    pytest.importorskip("ipykernel.kernelapp")
    count(clock, 9.0)
    assert capsys.readouterr().err == ""


def test_before_eyes_it_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in bars.progress_bar(range(3), desc="counting"):
        pass
    assert "\r" in capsys.readouterr().err


def test_nothing_where_nothing_is_wanted(clock, capsys):
    for _ in bars.progress_bar(range(3), disable=True):
        clock[0] += 20
    assert capsys.readouterr().err == ""
