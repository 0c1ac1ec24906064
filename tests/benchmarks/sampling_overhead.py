"""What one batched leapfrog step costs over the bare decoder's forward and backward pass."""

from __future__ import annotations

import time
from statistics import median

import torch

from posterior_inpainting.inference.adaptation import Preconditioner
from posterior_inpainting.inference.methods import Problem
from posterior_inpainting.inference.potential import Potential
from posterior_inpainting.inference.trajectory import evaluate, trajectory
from posterior_inpainting.models import LatentCode, Observation


def overhead_table(
    models: dict[str, LatentCode],
    observation: Observation,
    chains: int = 256,
    steps: int = 20,
    rounds: int = 30,
) -> list[str]:
    """Measure turn and turn about: a trajectory, the bare decoder at every pixel, and at seen pixels only."""
    lines = [
        f"## One leapfrog step of {chains} chains over the bare decoder's forward and backward pass\n",
        "| decoder | step, us a chain | decoder, all pixels | decoder, seen pixels | over all | over seen |",
        "|---|---|---|---|---|---|",
    ]
    for name, model in models.items():
        potential = Potential(Problem(model, (observation.image, observation.mask)))
        generator = torch.Generator().manual_seed(0)
        position = torch.randn(1, chains, model.latent, generator=generator)
        start = evaluate(potential, position)
        factor = torch.linalg.cholesky(0.05 * torch.eye(model.latent) + 0.001).unsqueeze(0)
        scales, size = Preconditioner(factor), torch.tensor([1e-3])
        seen = observation.mask.flatten().nonzero().flatten()
        decode = model.decoder.restrict(seen)
        contenders = {
            "step": lambda: trajectory(potential, start, size, [steps], scales, generator),
            "all": lambda: _bare(model.decoder.mean_and_scale, position, steps),
            "seen": lambda: _bare(decode, position, steps),
        }
        seconds: dict[str, list[float]] = {key: [] for key in contenders}
        for _ in range(rounds):
            for key, run in contenders.items():
                begin = time.process_time()
                run()
                seconds[key].append((time.process_time() - begin) / steps / chains * 1e6)
        step, everything, restricted = (median(seconds[key]) for key in ("step", "all", "seen"))
        over = (
            median(a / b for a, b in zip(seconds["step"], seconds[key], strict=True))
            for key in ("all", "seen")
        )
        lines.append(
            f"| {name} | {step:.1f} | {everything:.1f} | {restricted:.1f} | {next(over):.2f} | {next(over):.2f} |"
        )
    return [*lines, ""]


def _bare(decode, position, steps: int) -> None:
    for _ in range(steps):
        z = position.detach().requires_grad_()
        mean, _ = decode(z)
        torch.autograd.grad(mean, z, torch.ones_like(mean))
