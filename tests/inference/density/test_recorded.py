"""Recordings give the numbers that the function gives, or nothing."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density import recorded
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.density.recorded import Recorded

EFFECTS = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])


def schools(effects):
    """A positive scale, and effects that depend on it."""
    scale = pyro.sample("scale", dist.HalfCauchy(5.0))
    with pyro.plate("schools", len(effects)):
        effect = pyro.sample("effect", dist.Normal(0.0, scale))
        pyro.sample("seen", dist.Normal(effect, 10.0), obs=effects)


@pytest.fixture
def soon(monkeypatch):
    """Record at the third call."""
    monkeypatch.setattr(recorded, "_CALLS", 2)


@pytest.mark.usefixtures("soon")
class TestDensity:
    @pytest.mark.parametrize("chains", [1, 5, 16, 20])
    @pytest.mark.parametrize("tempered", [False, True])
    def test_repeats_value_and_gradient(self, chains, tempered):
        potential, never = Potential(Problem(schools, (EFFECTS,))), Potential(Problem(schools, (EFFECTS,)))
        never._replayed = None
        beta = torch.linspace(0.1, 1, chains) if tempered else 1.0
        for _ in range(5):
            position = potential.draw_prior(chains)
            for one, other in zip(
                potential.gradient(position, beta), never.gradient(position, beta), strict=True
            ):
                torch.testing.assert_close(one, other)
            with torch.no_grad():
                for one, other in zip(potential(position), never(position), strict=True):
                    torch.testing.assert_close(one, other)
        assert recordings(potential._replayed._gradient) == recordings(potential._replayed._density) == 1

    def test_of_some_groups(self):
        effects = torch.stack([EFFECTS, EFFECTS + 5, EFFECTS - 3])
        potential = Potential(Problem(schools, (effects,)), groups=3)
        position = potential.draw_prior(12).reshape(3, 4, -1)
        every = potential.gradient(position)
        for which in ([0], [1], [2], [1], [0, 2], [1, 2], [0, 1]):
            some = potential.gradient(position[which], which=torch.tensor(which))
            for one, other in zip(some, every, strict=True):
                torch.testing.assert_close(one, other[which])
        assert recordings(potential._replayed._gradient) == 2

    def test_where_it_fails_the_chain_alone_is_out(self):
        """A recorded Cholesky that fails is computed again by the function, which says at which chain."""

        def model():
            x = pyro.sample("x", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.factor("root", torch.linalg.cholesky(x[..., None] + 1.0).sum((-1, -2)))

        potential = Potential(Problem(model))
        good = torch.linspace(0.5, 1.5, 4)[:, None]
        for _ in range(4):
            potential.gradient(good)
        assert recordings(potential._replayed._gradient) == 1
        bad = good.clone()
        bad[2] = -3.0
        assert potential.gradient(bad)[1].isfinite().tolist() == [True, True, False, True]
        assert potential.failures == 1

    def test_is_recorded_later_where_it_fails_at_first(self):
        replay = Recorded(lambda rows: (torch.linalg.cholesky(rows[..., None])[..., 0, 0].log(),) * 2)
        for _ in range(4):
            assert replay(-torch.ones(1, 1)) is None
        for _ in range(3):
            found = replay(4 * torch.ones(1, 1))
        assert found[0].tolist() == pytest.approx([math.log(2)])


@pytest.mark.usefixtures("soon")
def test_what_draws_is_not_recorded():
    noisy = Recorded(lambda rows: (rows.sum(-1) + torch.randn(len(rows)),) * 2)
    for _ in range(6):
        assert noisy(torch.ones(3, 2)) is None


@pytest.mark.usefixtures("soon")
def test_what_cannot_be_recorded_is_called():
    def branching(rows):
        return (rows.sum(-1) if float(rows.sum()) > 0 else rows.prod(-1),) * 2

    replay = Recorded(branching)
    for _ in range(6):
        assert replay(torch.ones(3, 2)) is None


def recordings(replay):
    """How many there are."""
    return sum(one is not None for one in replay._recordings.values())
