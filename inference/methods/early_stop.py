"""Stopping an optimiser early, by what it says of seen pixels that it was not shown.

A network that can fit anything fits what is seen first better in the hole, too, then worse (Ulyanov et al. 2018,
figure 3), and who knows no truth cannot see it. Some of the seen pixels are therefore held out of what is climbed, as
of a training set (Prechelt 1998, *Early Stopping - But When?*), and each climb is taken where it says most of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.density import Density
from posterior_inpainting.inference.methods.climbing import Climb
from posterior_inpainting.inference.methods.loop import Row
from posterior_inpainting.models.base import ImageModel
from posterior_inpainting.models.measurements import Instrument
from posterior_inpainting.models.operators import mask as picked
from posterior_inpainting.models.shapes import Mask

__all__ = ["StoppedClimb", "held_apart"]


def held_apart(problem: Problem, share: float, generator: Generator) -> tuple[Problem, Problem]:
    """Return the problem of most of the seen pixels, and that of those that are held out of it.

    Parameters
    ----------
    problem
        A model of images and what it is called with: one image or a batch, or a single measurement, of which values
        are held out.
    share
        Of the seen places ``(row, column)``, whose channels are held out together; at least one is, and one is not.
    generator
        Of the order in which places are taken, on the CPU; the same for all images of a batch.

    Raises
    ------
    ValueError
        For a model that is none of images, or an image of which fewer than two places are seen.

    Examples
    --------
    >>> from posterior_inpainting.models import LatentCode, pretrained
    >>> problem = Problem(LatentCode(pretrained.load("digits-vae-2d")), (torch.rand(1, 8, 8),))
    >>> fitted, judged = held_apart(problem, 0.1, Generator().manual_seed(0))
    >>> int(fitted.args[1].sum()), int(judged.args[1].sum()), bool((fitted.args[1] & judged.args[1]).any())
    (58, 6, False)
    """
    if not isinstance(problem.model, ImageModel):
        raise ValueError(f"held_out={share:g} is of seen pixels; expected a model of images")
    image, *rest = problem.args
    if rest and isinstance(rest[0], Instrument):
        values = torch.ones_like(image, dtype=torch.bool)
        parts = _parts(values, share, generator)
        return tuple(replace(problem, args=_measured(image, rest[0], part)) for part in parts)  # type: ignore[return-value]
    seen = rest[0] if rest else torch.ones_like(image, dtype=torch.bool)
    parts = _parts(seen.expand(image.shape), share, generator)
    return tuple(replace(problem, args=(image, part)) for part in parts)  # type: ignore[return-value]


def _parts(seen: Mask, share: float, generator: Generator) -> tuple[Mask, Mask]:
    """Return which seen pixels ``(*batch, channel, row, column)`` are fitted, and which are held out."""
    places = seen.any(-3).flatten(-2)
    least = int(places.sum(-1).min())
    if least < 2:
        raise ValueError(f"held_out={share:g} of {least} seen pixels; expected at least 2")
    order = torch.rand(places.shape[-1], generator=generator, device="cpu").to(seen.device)
    ranks = torch.where(places, order, torch.inf).argsort(-1).argsort(-1)
    count = (share * places.sum(-1, keepdim=True)).round().clamp(min=1)
    count = torch.minimum(count, places.sum(-1, keepdim=True) - 1)
    held = (ranks < count).reshape(*seen.shape[:-3], 1, *seen.shape[-2:]) & seen
    return seen & ~held, held


def _measured(values: Tensor, instrument: Instrument, part: Mask) -> tuple[Tensor, Instrument]:
    """Return some of the values of a measurement ``(channel, row, column)``, and the instrument that gives them."""
    return values[part].reshape(1, 1, -1), replace(instrument, operator=picked(part) @ instrument.operator)


class StoppedClimb(Climb):
    """A climb of which each position is taken at the step where the held-out pixels were the likeliest.

    Rows have the statistic ``held_out_loss`` too, minus the log likelihood of the held-out pixels in nats. Where rows
    of the way are wanted, they are the way as it went, its end included, and nothing is chosen.

    Parameters
    ----------
    density, position, steps, learning_rate, wanted
        As for ``Climb``; the density is of the pixels that are fitted.
    judge
        The density of those that are held out; its likelihood alone is read.
    """

    def __init__(
        self,
        density: Density,
        position: Tensor,
        steps: int,
        learning_rate: float,
        wanted: tuple[int, ...] = (),
        *,
        judge: Density,
    ):
        super().__init__(density, position, steps, learning_rate, wanted)
        self.judge = judge
        self.best = self.position.clone()
        self.best_loss = torch.full_like(self.position[..., 0], torch.inf)
        self.best_step = torch.zeros_like(self.best_loss, dtype=torch.int64)

    @property
    def held_out(self) -> int:
        """How many values are held out, of a batch all together."""
        values, seen = self.judge.problem.args
        return values.numel() if isinstance(seen, Instrument) else int(seen.sum())

    def step(self) -> Row | None:
        """Look at the held-out pixels, then go up."""
        self._look()
        return super().step()

    def state(self) -> dict[str, Any]:
        """Return where it is, and the best that it has met."""
        best = {"best": self.best, "best_loss": self.best_loss, "best_step": self.best_step}
        return super().state() | {name: value.clone() for name, value in best.items()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().restore(state)
        self.best, self.best_loss, self.best_step = (
            state[name].to(self.position.device) for name in ("best", "best_loss", "best_step")
        )

    def _loss(self, position: Tensor) -> Tensor:
        with torch.no_grad():
            return -self.judge(position)[1]

    def _look(self) -> None:
        """Remember the positions that are better than all before; one without a number is better than none."""
        loss = self._loss(self.position)
        better = loss < self.best_loss
        self.best[better] = self.position.detach()[better]
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.best_step[better] = self.iteration

    def _row(self) -> Row:
        """Return the chosen positions, or the end of the way where the way is wanted."""
        if len(self.wanted) > 1:
            return super()._row()
        with torch.no_grad():
            lp = sum(self.density(self.best))
        return self._kept(lp, self.best, self.best_step)  # type: ignore[arg-type]

    def _kept(self, lp: Tensor, position: Tensor, step: int | Tensor, **more: Tensor) -> Row:
        return super()._kept(lp, position, step, held_out_loss=self._loss(position), **more)
