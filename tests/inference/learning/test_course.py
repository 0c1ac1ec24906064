"""The course of a training: it ends where it should, with the best weights, and goes on from where it was killed."""

import math
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from posterior_inpainting.inference.learning import course as module
from posterior_inpainting.inference.learning.course import Course
from posterior_inpainting.inference.learning.phases import Phase, Player
from posterior_inpainting.inference.streams import Streams


class Line(nn.Module):
    """One number that is to become 3, seen through noise."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    @property
    def value(self):
        return float(self.weight.detach())

    def loss(self, which):
        return (self.weight - 3 - torch.randn(len(which))).square().mean()

    def score(self):
        return -float((self.weight.detach() - 3).square())


def phase(line, **settings):
    settings = {"learning_rate": 0.05, "batch_size": 20, "averaging": 0.9} | settings
    return Phase("line", (Player((line,), line.loss),), line.score, **settings)


def run(line, checkpoint=None, minutes=None, signature=None, **settings):
    with Streams(0).seeded("test"):
        phases = (phase(line, **settings),)
        return Course(phases, 100, signature or {"seed": 0}, checkpoint, minutes, False).run()[0]


def test_it_ends_by_itself_with_the_best_weights():
    line = Line()
    record = run(line)
    assert line.score() == max(record.scores)
    assert abs(line.value - 3) < 0.1
    # Three times six validations without a better one are the least; noise may make it a few times more.
    assert 18 < len(record.scores) < 400


def test_steps_shrink_before_it_ends(monkeypatch):
    """With steps that stay as they are the noise of a step stays too; shrunk, the last weights lie closer together."""
    rates = []
    real = module._Walk._rate
    monkeypatch.setattr(module._Walk, "_rate", lambda self, now: rates.append(real(self, now)) or rates[-1])
    run(Line())
    assert sorted({round(rate, 6) for rate in rates}, reverse=True) == pytest.approx(
        [0.05, 0.05 / 3, 0.05 / 9], rel=1e-3
    )


def test_time_bounds_it_and_steps_fall_to_nothing(monkeypatch):
    """By a clock that ticks a second a step: the time is kept, and the last steps are next to nothing."""
    now, rates = [0.0], []
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    real = module._Walk._rate

    def rate(self, seconds):
        now[0] += 1
        rates.append(real(self, seconds))
        return rates[-1]

    monkeypatch.setattr(module._Walk, "_rate", rate)
    record = run(Line(), minutes=1)
    assert 60 <= record.seconds <= 62
    assert rates[30] == pytest.approx(0.05)
    assert rates[-1] < 0.05 / 20


def test_phases_share_the_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    real = module._Walk._rate

    def rate(self, seconds):
        now[0] += 1
        return real(self, seconds)

    monkeypatch.setattr(module._Walk, "_rate", rate)
    lines = Line(), Line()
    phases = phase(lines[0], share=3.0), phase(lines[1], share=1.0)
    first, second = Course(phases, 100, {}, None, 2, False).run()
    assert 90 <= first.seconds <= 91
    assert 29 <= second.seconds <= 31


def test_what_comes_before_a_phase_comes_when_the_one_before_has_ended():
    lines, said = (Line(), Line()), []
    second = phase(lines[1], begin=lambda: said.append(lines[0].value))
    Course((phase(lines[0]), second), 100, {}, None, None, False).run()
    assert said == [lines[0].value]


def test_two_players_move_against_losses_of_their_own():
    """A game with a saddle at 0: each moves its own number alone, and Adam brings both near it."""
    one, other = Line(), Line()
    with torch.no_grad():
        one.weight.fill_(1.0)
        other.weight.fill_(-1.0)

    def saddle(which):
        return one.weight * other.weight + 0.5 * one.weight.square() - 0.5 * other.weight.square()

    players = Player((one,), saddle), Player((other,), lambda which: -saddle(which))
    score = lambda: -float((one.weight.square() + other.weight.square()).detach())  # noqa: E731
    Course((Phase("game", players, score, learning_rate=0.05),), 100, {}, None, None, False).run()
    assert score() > -0.01


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_killed_training_ends_as_one_that_was_not(tmp_path, monkeypatch, after):
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    whole = Line()
    record = run(whole)
    killed = Line()
    scores = []

    def score():
        scores.append(0)
        if len(scores) > after:
            raise KeyboardInterrupt
        return Line.score(killed)

    killed.score = score
    with pytest.raises(KeyboardInterrupt):
        run(killed, tmp_path / "c.pt")
    again = Line()
    torch.manual_seed(1)  # whatever the generators stand at
    found = run(again, tmp_path / "c.pt")
    assert again.value == whole.value
    assert (found.scores, found.steps) == (record.scores, record.steps)


@pytest.mark.parametrize("kills", [(3,), (20, 40), (80,), (100, 110)])
def test_two_phases_killed_in_either_or_both(tmp_path, monkeypatch, kills):
    """After so many validations of both together; the networks differ in size, as those of phases do."""
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    monkeypatch.setattr(module, "_EPOCHS", 60)
    counted = []

    def phases(most):
        torch.manual_seed(0)
        lines = Line(), nn.Linear(3, 2)

        def scored(score):
            counted.append(0)
            if len(counted) > most:
                raise KeyboardInterrupt
            return score()

        def loss(which):
            return (lines[1].weight - 1 - 0.1 * torch.randn(2, 3)).square().mean() + lines[
                1
            ].bias.square().mean()

        first = phase(lines[0], patience=1000)
        second = Phase(
            "second",
            (Player((lines[1],), loss),),
            lambda: -float((lines[1].weight.detach() - 1).square().sum()),
            patience=1000,
        )
        pair = [
            Phase(one.name, one.players, lambda s=one.score: scored(s), patience=1000, validation=1)
            for one in (first, second)
        ]
        return lines, pair

    def course(most, file):
        lines, pair = phases(most)
        with Streams(0).seeded("test"):
            Course(pair, 100, {}, file, None, False).run()
        return [lines[0].value, *lines[1].weight.detach().flatten().tolist()]

    whole = course(10_000, None)
    for most in kills:
        counted.clear()
        with pytest.raises(KeyboardInterrupt):
            course(most if most == kills[0] else most - kills[0], tmp_path / "c.pt")
    counted.clear()
    assert course(10_000, tmp_path / "c.pt") == whole


def test_a_finished_training_is_not_run_again(tmp_path):
    line = Line()
    record = run(line, tmp_path / "c.pt")
    again = Line()
    assert run(again, tmp_path / "c.pt").steps == record.steps
    assert again.value == line.value


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    run(Line(), tmp_path / "c.pt")
    with pytest.raises(ValueError, match=r"c\.pt is of another training: seed differ"):
        run(Line(), tmp_path / "c.pt", signature={"seed": 1})


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run(Line(), tmp_path / "c.pt")
    content = bytearray((tmp_path / "c.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        run(Line(), tmp_path / "c.pt")


def test_a_score_that_is_no_number_ends_it_in_a_line():
    line = Line()
    line.score = lambda: math.nan
    with pytest.raises(ValueError, match=r"^the validation score of line is nan after \d+ steps"):
        run(line)


KILLED = """
import sys, warnings
from posterior_inpainting.inference import learn
from posterior_inpainting.inference.learning import course
from posterior_inpainting.inference.learning.autoencoder import AutoencoderLearner
from posterior_inpainting.models import datasets
course._SECONDS, course._EPOCHS, AutoencoderLearner.test_images = 0.0, 6, 2
print("ready", flush=True)
learn(datasets.load("digits")[:300], out=sys.argv[1], progress=False)
"""


def test_learn_survives_kill_9(tmp_path):
    """Killed at moments that nothing chooses, the same call ends with the weights of one that was not killed."""
    script = tmp_path / "learns.py"
    script.write_text(textwrap.dedent(KILLED))
    command = [sys.executable, str(script)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment, timeout=120)
    kills = 0
    for number in range(12):
        with subprocess.Popen(
            [*command, str(tmp_path / "killed")], env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            process.stdout.readline()
            try:
                process.wait(1 + number)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
                continue
        break
    assert kills >= 2
    whole, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
    assert not (tmp_path / "killed" / "checkpoint.pt").exists()
