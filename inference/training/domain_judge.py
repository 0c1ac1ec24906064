"""Learning to tell a domain's images from made-up ones by any seen pixels: what ``diagnostics.fit`` ranks by."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from posterior_inpainting.inference.bars import progress_bar
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.inference.training.schedule import Schedule
from posterior_inpainting.models import observations
from posterior_inpainting.models.images.made_up_images import made_up
from posterior_inpainting.models.networks.domain_judge import DomainJudge
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["LEAST", "learn_domain_judge"]

#: References that are kept at most, and the fewest by which 1 in 20 can be told.
MOST, LEAST = 1000, 19


def learn_domain_judge(
    images: Image,
    held_back: Image,
    *,
    masks: Mask | None = None,
    widths: tuple[int, ...] = (128, 128),
    steps: int = 4000,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = True,
) -> DomainJudge:
    """Train a network on a domain's images and as many made-up ones, and keep images held back beside it.

    Logistic regression of the kind of an image on its seen pixels, behind masks of every kind, thinned at random down
    to a few in a hundred pixels (density ratios: Sugiyama et al. 2012, section 3.2). 4,000 steps of 28 x 28 pixels
    take a minute of one core.

    Parameters
    ----------
    images
        ``(n, channel, row, column)`` in [0, 1]: those that the prior was trained on.
    held_back
        ``(m, channel, row, column)``, whole, of the same domain: such that nothing, the prior included, was trained on.
        The first 1,000 are kept with the network: whoever is given it is given them.
    masks
        What is seen of each of ``images``, ``(n, channel, row, column)``; all of them if not given.
    widths
        Units of the network's hidden layers.
    steps, batch_size
        Of the training, and images of each kind a step.
    seed
        The same one gives the same network on the same machine.
    progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        For fewer than 19 images held back, or shapes that differ.

    Examples
    --------
    >>> from posterior_inpainting.models import datasets
    >>> images = datasets.load("digits")
    >>> judge = learn_domain_judge(images[:200], images[200:250], steps=3, progress=False)
    >>> len(judge.references)
    50
    """
    if len(held_back) < LEAST:
        raise ValueError(f"{len(held_back)} images are held back; expected at least {LEAST}")
    if images.dim() != 4 or images.shape[1:] != held_back.shape[1:]:
        raise ValueError(
            f"images have shape {tuple(images.shape)}, those held back {tuple(held_back.shape)}; "
            "expected (n, channel, row, column), alike but for n"
        )
    if masks is not None:
        if masks.shape != images.shape:
            raise ValueError(f"masks have shape {tuple(masks.shape)}; expected {tuple(images.shape)}")
        images = torch.where(masks, images, 0.0)  # holes are moved to where they would be read
    streams, shape = Streams(seed), tuple(images.shape[1:])
    with streams.seeded("network"):
        judge = DomainJudge(shape, min(len(held_back), MOST), widths)
    judge = judge.to(images.device)
    judge.references.copy_(held_back[:MOST])
    bank = observations.random_masks(shape, 4000, streams.number("masks")).to(images.device)
    generator = streams.generator("examples", device=images.device)
    optimiser, scheduler = Schedule(progress=False).stepper(judge.parameters(), steps)

    def some(count: int) -> torch.Tensor:
        """Draw indices below a number, as many as a step takes of each kind."""
        return torch.randint(count, (batch_size,), generator=generator, device=images.device)

    labels = images.new_zeros(2 * batch_size)
    labels[batch_size:] = 1
    for _ in progress_bar(range(steps), desc="domain", disable=not progress):
        which = some(len(images))
        real, shown = images[which], _thinned(bank[some(len(bank))], generator)
        if masks is not None:
            shown = shown & masks[which]
        both = torch.cat([real, made_up(real, generator)])
        loss = F.binary_cross_entropy_with_logits(judge(both, shown.repeat(2, 1, 1, 1)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
    return judge.requires_grad_(False).eval()


def _thinned(masks: Mask, generator: torch.Generator) -> Mask:
    """Hide pixels of masks at random: of a fifth none, of the others all but a share between 4 and 100 in a hundred."""
    uniform = torch.rand(len(masks), 1, 1, 1, generator=generator, device=masks.device)
    share = (0.8 - 4 * uniform).clamp(max=0).exp()
    return masks & (torch.rand(masks.shape, generator=generator, device=masks.device) < share)
