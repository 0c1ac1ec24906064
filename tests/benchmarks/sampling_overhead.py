"""What one batched leapfrog step costs over the bare decoder's forward and backward pass."""

from __future__ import annotations

from statistics import median

import tables
import torch
from timing import by_turns

from posterior_inpainting.inference.contract import Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.methods.adaptation import Preconditioner
from posterior_inpainting.inference.methods.trajectory import evaluate, trajectory
from posterior_inpainting.models import LatentCode, Observation


def overhead_table(
    models: dict[str, LatentCode],
    observation: Observation,
    counts: tuple[int, ...] = (4, 64, 256),
    turns: int = 2000,
) -> str:
    """Measure turn and turn about: a trajectory, the bare decoder at every pixel, and at seen pixels only."""
    rows = [
        [name, str(chains), *_overhead(model, observation, chains, max(10, turns // chains))]
        for name, model in models.items()
        for chains in counts
    ]
    head = ["decoder", "chains", "leapfrog step", "decoder, all pixels", "decoder, seen pixels"]
    return f"""## One leapfrog step over the bare decoder's forward and backward pass

Microseconds a chain, bottom half hidden. Ours evaluates the last layer at seen pixels only.

{tables.markdown([*head, "over all", "over seen"], rows)}
"""


def _overhead(
    model: LatentCode, observation: Observation, chains: int, turns: int, steps: int = 20
) -> list[str]:
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
    spent = by_turns(contenders, turns)
    cost = [f"{1e6 * median(times) / steps / chains:.1f}" for times in spent.values()]
    over = [median(a / b for a, b in zip(spent["step"], spent[key], strict=True)) for key in ("all", "seen")]
    return [*cost, *(f"{ratio:.2f}" for ratio in over)]


def _bare(decode, position, steps: int) -> None:
    for _ in range(steps):
        z = position.detach().requires_grad_()
        mean, scale = decode(z)
        torch.autograd.grad(mean.sum() + scale.sum(), z)
