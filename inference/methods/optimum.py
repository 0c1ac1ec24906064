"""`MAP`: the best latents from several starts, as in Yeh et al. 2017. Optima, not draws.

Every restart and every image is an independent optimisation, although all run in one batch: Adam works
element by element, so nothing of one reaches another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from posterior_inpainting.inference.contract import Draws, Problem
from posterior_inpainting.inference.density.budget import affordable
from posterior_inpainting.inference.density.potential import Potential

__all__ = ["MAP", "climb"]


def climb(potential: Potential, position: Tensor, steps: int = 300, learning_rate: float = 0.03) -> Tensor:
    """Move chains ``(..., chain, dim)`` towards an optimum each, by Adam: where thousands of weights may start."""
    position = position.clone()
    optimiser = torch.optim.Adam([position], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        position.grad = -potential.gradient(position)[2]
        optimiser.step()
        schedule.step()
    return position


@dataclass(frozen=True)
class MAP:
    """Maximise the joint density over the latents from ``restarts`` draws of the prior.

    In Pyro's words an ``AutoDelta`` for each restart. The result has one *restart* a chain and one
    draw; no diagnostic treats them as a sample. ``draws`` and ``chains`` of ``infer`` are not read.

    Parameters
    ----------
    restarts
        Number of starting points.
    steps, learning_rate
        Adam's steps and first step size, which falls to 0 along half a cosine.
    snapshots
        Points of the way that are kept, at steps evenly spaced in their logarithm, the end among them:
        the result's draws are then the ``path`` of each restart, for ``early_stopping``.

    Examples
    --------
    >>> from posterior_inpainting.models import LinearGaussian, datasets
    >>> images = datasets.load("digits", split="train")
    >>> model = LinearGaussian.fit(images, latent=3)
    >>> latents, lp = MAP(restarts=2, steps=300).optimise(Problem(model, (images[:4],)))
    >>> tuple(latents["z"].shape), tuple(lp.shape)
    ((2, 4, 3), (2,))
    """

    restarts: int = 8
    steps: int = 1000
    learning_rate: float = 0.05
    snapshots: int = 1

    def __post_init__(self):
        if self.restarts < 1 or self.steps < 1 or self.snapshots < 1:
            raise ValueError(
                f"restarts={self.restarts}, steps={self.steps}, snapshots={self.snapshots}; "
                "expected at least 1 of each"
            )

    def run(self, problem: Problem, *, draws: int, chains: int, seed: int, progress: bool) -> Draws:
        """Optimise from every restart; chain = restart, draw = snapshot."""
        torch.manual_seed(seed)
        kept = getattr(problem.model, "kept", lambda latents: latents)
        wanted = np.unique(np.geomspace(1, self.steps, self.snapshots + 1).round().astype(int)[1:])
        path: list[tuple[int, dict[str, Tensor], Tensor]] = []

        def look(step: int, latents: dict[str, Tensor], lp: Tensor) -> None:
            if step in wanted[:-1]:
                path.append((step, kept({k: v.clone() for k, v in latents.items()}), lp))

        potential, position = self._start(problem)
        latents, lp = self._climb(potential, position, progress, look if self.snapshots > 1 else None)
        path.append((potential.gradients // position[..., 0].numel(), kept(latents), lp))
        attrs = {"gradient_evaluations": potential.gradients, "best_restart": int(lp.argmax())}
        steps, points, densities = zip(*path, strict=True)
        stats = {"lp": torch.stack(densities, 1), "step": torch.tensor(steps).expand(self.restarts, -1)}
        sites = {name: torch.stack([one[name] for one in points], 1) for name in points[0]}
        return Draws(sites, stats, "restarts" if self.snapshots == 1 else "path", attrs)

    def optimise(
        self, problem: Problem, progress: bool = False, look: Callable | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the optima, site -> ``(restart, *batch, *event)``, and their log joint density ``(restart,)``.

        A batch of images is optimised as if each were alone, from the same starting points. ``look`` is
        called with the number of steps made so far, the latents there and their log joint density.
        """
        return self._climb(*self._start(problem), progress, look)

    def _climb(
        self, potential: Potential, position: Tensor, progress: bool, look: Callable | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        steps = affordable(self.steps, position[..., 0].numel())
        optimiser = torch.optim.Adam([position], lr=self.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in tqdm(range(steps), desc="MAP", disable=not progress, unit="step"):
            log_prior, log_likelihood, gradient = potential.gradient(position)
            if look is not None:
                look(step, _by_restart(potential, position), _by_restart_sum(log_prior + log_likelihood))
            position.grad = -gradient
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            log_prior, log_likelihood = potential(position)
        return _by_restart(potential, position), _by_restart_sum(log_prior + log_likelihood)

    def _start(self, problem: Problem) -> tuple[Potential, Tensor]:
        """Draw starts from the prior, the same for every image of a batch: ``([image,] restart, dim)``."""
        images = max((len(a) for a in problem.args if isinstance(a, Tensor) and a.dim() == 4), default=None)
        if images is not None:  # a mask may be shared by all images
            args = (a.expand(images, *a.shape[-3:]) if isinstance(a, Tensor) else a for a in problem.args)
            problem = replace(problem, args=tuple(args))
        # The optimum is that of the density in the model's own space, whose constraints `constrain` keeps.
        potential = Potential(problem, groups=images, jacobian=False)
        position = potential.draw_prior(self.restarts)
        return potential, position if images is None else position.repeat(images, 1, 1)


def _by_restart(potential: Potential, position: Tensor) -> dict[str, Tensor]:
    """Latents with restarts first: site -> ``(restart, [image,] *event)``."""
    latents = potential.constrain(position.detach())
    return {n: v if potential.groups is None else v.transpose(0, 1).clone() for n, v in latents.items()}


def _by_restart_sum(lp: Tensor) -> Tensor:
    """Sum log densities ``([image,] restart)`` over images."""
    return lp if lp.dim() == 1 else lp.sum(0)
