"""What one batched leapfrog step costs over the bare decoder's forward and backward pass."""

from __future__ import annotations

import time
from statistics import median

import torch

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.adaptation import Preconditioner
from posterior_inpainting.inference.methods.trajectory import evaluate, trajectory
from posterior_inpainting.models import LatentCode, Observation


def overhead_table(
    models: dict[str, LatentCode], observation: Observation, counts: tuple[int, ...] = (4, 64, 256)
) -> list[str]:
    """Measure turn and turn about: a trajectory, the bare decoder at every pixel, and at seen pixels only."""
    lines = [
        "## One leapfrog step over the bare decoder's forward and backward pass\n",
        "Microseconds a chain, bottom half hidden. Ours evaluates the last layer at seen pixels only.\n",
        "| decoder | chains | leapfrog step | decoder, all pixels | decoder, seen pixels | over all | over seen |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, model in models.items():
        lines += [_overhead_line(name, model, observation, chains) for chains in counts]
    return [*lines, ""]


def _overhead_line(
    name: str, model: LatentCode, observation: Observation, chains: int, steps: int = 20
) -> str:
    potential = Potential(Problem(model, (observation.image, observation.mask)))
    generator = torch.Generator().manual_seed(0)
    position = torch.randn(1, chains, model.latent, generator=generator)
    start = evaluate(potential, position)
    factor = torch.linalg.cholesky(0.05 * torch.eye(model.latent) + 0.001).unsqueeze(0)
    scales, size = Preconditioner(factor), torch.tensor([1e-3])
    decode = model.decoder.restrict(observation.mask.flatten().nonzero().flatten())
    contenders = {
        "step": lambda: trajectory(potential, start, size, [steps], scales, generator),
        "all": lambda: _bare(model.decoder.mean_and_scale, position, steps),
        "seen": lambda: _bare(lambda z: decode(z)[:2], position, steps),
    }
    cost: dict[str, list[float]] = {key: [] for key in contenders}
    for _ in range(max(10, 2000 // chains)):
        for key, run in contenders.items():
            begin = time.process_time()
            run()
            cost[key].append((time.process_time() - begin) / steps / chains * 1e6)
    step, everything, seen = (median(values) for values in cost.values())
    over = [median(a / b for a, b in zip(cost["step"], cost[key], strict=True)) for key in ("all", "seen")]
    return (
        f"| {name} | {chains} | {step:.1f} | {everything:.1f} | {seen:.1f} | {over[0]:.2f} | {over[1]:.2f} |"
    )


def _bare(decode, position, steps: int) -> None:
    for _ in range(steps):
        z = position.detach().requires_grad_()
        mean, scale = decode(z)
        torch.autograd.grad(mean.sum() + scale.sum(), z)
