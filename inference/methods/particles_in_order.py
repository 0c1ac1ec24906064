r"""Particles carried along a model's own order: sequential Monte Carlo, and the same around a path that is kept.

Gordon, Salmond & Smith 1993; with twisted targets (Naesseth, Lindsten & Schon 2019, *Elements of Sequential Monte
Carlo*), systematic resampling where the effective sample size falls below a share of the particles, and the evidence

.. math:: \hat Z = \prod_{r} \frac1N \sum_i w_r^i

over the resamplings r and the end, w being the weights since the last one. It is unbiased: the twist is 1 at the end.
Around a kept path this is conditional SMC (Andrieu, Doucet & Holenstein 2010), with systematic resampling given that
the path survives (Chopin & Singh 2015, *On Particle Gibbs Sampling*, algorithm 4) and its ancestor drawn anew, where
the model knows how well each particle leads to the rest of it (Lindsten, Jordan & Schon 2014).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from posterior_inpainting.models.densities.sequential import SequentialModel

__all__ = ["Swept", "conditional_ancestors", "sweep", "systematic_ancestors"]


@dataclass(frozen=True)
class Swept:
    """Particles at the end of the order, with where they came from.

    Parameters
    ----------
    values, ancestors
        Of each step ``(chain, particle, size)``, and the particles before it that each came from ``(chain, particle)``.
    log_weight
        ``(chain, particle)``, not normalised.
    log_evidence
        Of each chain ``(chain,)``.
    resamplings
        How often each chain resampled ``(chain,)``.
    """

    values: list[Tensor]
    ancestors: list[Tensor]
    log_weight: Tensor
    log_evidence: Tensor
    resamplings: Tensor

    def paths(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return the paths ``(chain, path, dim)`` that lead to the particles ``(chain, path)``, and their share of new.

        The share ``(chain, path)`` is that of the steps at which a path does not hold the first particle's values,
        which are the kept path's where there is one.
        """
        parts, new = [], torch.zeros_like(chosen, dtype=self.log_weight.dtype)
        for value, ancestor in zip(reversed(self.values), reversed(self.ancestors), strict=True):
            parts.append(value.gather(1, chosen.unsqueeze(-1).expand(-1, -1, value.shape[-1])))
            new = new + (chosen != 0)
            chosen = ancestor.gather(1, chosen)
        return torch.cat(parts[::-1], -1), new / max(1, len(parts))


def sweep(
    model: SequentialModel,
    chains: int,
    particles: int,
    generator: Generator,
    kept: Tensor | None = None,
    share: float = 0.5,
    count: Callable[[int], None] = lambda steps: None,
) -> Swept:
    """Carry the particles of independent chains from the first step to the last.

    Parameters
    ----------
    model
        The latents in their order.
    chains, particles
        Chains side by side, and particles of each.
    generator
        Of the resampling; what is proposed is drawn with torch's global generators.
    kept
        A path of each chain ``(chain, dim)``, which its first particle then follows.
    share
        A chain resamples where its effective sample size is below this share of its particles; around a kept path
        always, where the model says that the rest of a path is cheap to weigh.
    count
        Told of how many single particles each step will be.
    """
    shape = chains, particles
    pieces = None if kept is None else kept.split(list(model.sizes), -1)
    now = model.start(chains * particles)
    log_weight = (now.log_increment + now.log_twist).reshape(shape)
    identity = torch.arange(particles, device=log_weight.device).expand(shape)
    evidence, resamplings = log_weight.new_zeros(chains), log_weight.new_zeros(chains)
    state, twist, values, ancestors = now.state, now.log_twist, [], []
    for step in range(len(model.sizes)):
        low = _effective(log_weight) < share * particles
        if kept is not None and model.rest_is_cheap:
            low = torch.ones_like(low)
        ancestor = identity
        if step and low.any():
            if kept is None:
                drawn = systematic_ancestors(log_weight, generator)
            else:
                rest = kept[:, sum(model.sizes[:step]) :].repeat_interleave(particles, 0)
                leads = model.log_rest(state, step, rest)
                first = _ancestor_of_kept(log_weight, twist, leads, generator)
                drawn = conditional_ancestors(log_weight, first, generator)
            ancestor = torch.where(low.unsqueeze(1), drawn, identity)
            flat = (ancestor + particles * torch.arange(chains, device=low.device).unsqueeze(1)).flatten()
            state, twist = model.select(state, flat), twist[flat]
            evidence = evidence + torch.where(low, _log_mean(log_weight), 0.0)
            log_weight = torch.where(low.unsqueeze(1), 0.0, log_weight)
            resamplings = resamplings + low
        count(chains * particles)
        value = model.propose(state, step)
        if pieces is not None:
            value = torch.cat([pieces[step].unsqueeze(1), value.unflatten(0, shape)[:, 1:]], 1).flatten(0, 1)
        now = model.extend(state, step, value)
        following = now.log_twist if step + 1 < len(model.sizes) else torch.zeros_like(twist)
        log_weight = log_weight + (now.log_increment + following - twist).reshape(shape)
        state, twist = now.state, following
        values.append(value.unflatten(0, shape))
        ancestors.append(ancestor)
    return Swept(values, ancestors, log_weight, evidence + _log_mean(log_weight), resamplings)


def systematic_ancestors(log_weight: Tensor, generator: Generator) -> Tensor:
    """Return indices ``(chain, particle)`` in proportion to weights, with one uniform a chain.

    >>> weight = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).log()
    >>> systematic_ancestors(weight, torch.Generator().manual_seed(0)).tolist()
    [[0, 0, 1, 2]]
    """
    offset = torch.rand(len(log_weight), 1, generator=generator, device=log_weight.device, dtype=torch.double)
    return _systematic(log_weight.double().softmax(1), offset)


def conditional_ancestors(log_weight: Tensor, first: Tensor, generator: Generator) -> Tensor:
    """Return indices ``(chain, particle)``, systematic given that the first of each chain is ``first`` ``(chain,)``.

    The law of a systematic draw, its places turned by a uniform number, given what stands in the first place.

    >>> weight = torch.tensor([[0.0, 0.5, 0.25, 0.25]]).log()
    >>> conditional_ancestors(weight, torch.tensor([2]), torch.Generator().manual_seed(0)).tolist()
    [[2, 3, 1, 1]]
    """
    chains, count = log_weight.shape
    turned = (torch.arange(count, device=log_weight.device) + first.unsqueeze(1)) % count
    weight = log_weight.double().softmax(1).gather(1, turned)
    expected = weight[:, :1] * count
    uniform = torch.rand(chains, 3, generator=generator, device=weight.device, dtype=torch.double)
    # Of the offsets at which the first has a copy, those with one more are as much likelier as there are copies.
    whole = expected.floor()
    over = expected - whole
    more = uniform[:, :1] * expected < over * (whole + 1)
    offset = torch.where(more, over * uniform[:, 1:2], over + (1 - over) * uniform[:, 1:2])
    drawn = _systematic(weight, offset)
    copies = (drawn == 0).sum(1, keepdim=True).clamp(min=1)
    shift = (uniform[:, 2:] * copies).long()
    places = (torch.arange(count, device=weight.device) + shift) % count
    found = turned.gather(1, drawn.gather(1, places))
    return torch.cat([first.unsqueeze(1), found[:, 1:]], 1)


def _ancestor_of_kept(
    log_weight: Tensor, twist: Tensor, leads: Tensor | None, generator: Generator
) -> Tensor:
    """Draw the particle ``(chain,)`` that the rest of each kept path is to come from, by how well each leads to it."""
    if leads is None:
        return torch.zeros(len(log_weight), dtype=torch.long, device=log_weight.device)
    log_prob = log_weight + (leads - twist).reshape(log_weight.shape)
    return torch.multinomial(log_prob.softmax(1), 1, generator=generator).squeeze(1)


def _systematic(weight: Tensor, offset: Tensor) -> Tensor:
    """Return indices at even places ``(chain, particle)``, from an offset ``(chain, 1)`` in [0, 1)."""
    count = weight.shape[1]
    places = (torch.arange(count, device=weight.device) + offset) / count
    return torch.searchsorted(weight.cumsum(1), places, right=True).clamp(max=count - 1)


def _effective(log_weight: Tensor) -> Tensor:
    """Return the effective sample size of each chain ``(chain,)``."""
    return 1 / log_weight.softmax(1).square().sum(1)


def _log_mean(log_weight: Tensor) -> Tensor:
    return log_weight.logsumexp(1) - math.log(log_weight.shape[1])
