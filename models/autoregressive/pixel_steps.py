r"""The hidden pixels of an autoregressive image in their order, for particles: Pixel Constrained CNN made exact.

The density of a particle is the prior network's, p, of all pixels so far, seen ones too; its proposal is the
constrained law q of Dupont & Suresha 2019, which looks ahead at what is seen. If q were the posterior itself, then with
:math:`h` the hidden and :math:`s` the seen pixels so far

.. math:: \psi_t \propto \prod_{h \le t} \frac{q(x_h)}{p(x_h)} \prod_{s \le t} \frac{1}{p(x_s)}

would be the probability of the seen pixels to come, and all weights equal. It is not, and its errors add up over the
pixels, while what it says of a seen pixel is of use only until that pixel has come. So this twist is forgotten,

.. math:: \log \psi_t = \lambda^{n_t} \log \psi_{t-1} + \log \frac{q(x_t)}{p(x_t)} - \sum_s \log p(x_s),

as seen pixels come, :math:`n_t` of them, and what is forgotten goes into the weights. Pixels after the last seen one
have nothing to look ahead at: there the proposal is p, and the twist 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from posterior_inpainting.models.autoregressive.image_law import AutoregressiveImage
from posterior_inpainting.models.densities.sequential import Extended, SequentialModel
from posterior_inpainting.models.networks.incremental import IncrementalPixelCNN
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["PixelSteps"]

#: Seen pixels over which the twist is forgotten, in rows of the image, and the side of a window.
_MEMORY, _WINDOW = 2.0, 7


@dataclass(frozen=True)
class Filling:
    """Images being filled ``(count, channel, row, column)``, and what their network has computed.

    Its ``outputs`` ``(count, output)`` are for the next hidden pixel; ``twist`` is the logarithm, ``(count,)``.
    """

    images: Image
    network: IncrementalPixelCNN
    outputs: Tensor
    twist: Tensor


class PixelSteps(SequentialModel):
    """Hidden pixels in raster order under a prior network, proposed by the constrained law.

    Parameters
    ----------
    constrained_law
        From image and mask to the constrained law, as ``PixelConstrained.constrained_law``.
    image
        ``(channel, row, column)``, or ``(chain, channel, row, column)`` where each chain sees another.
    mask
        ``(channel, row, column)``, ``True`` = seen, of all chains.

    Examples
    --------
    >>> from posterior_inpainting.models import PixelConstrained
    >>> from posterior_inpainting.models.networks import GatedPixelCNN
    >>> model = PixelConstrained(GatedPixelCNN((1, 4, 4), outputs=2, features=4, layers=2))
    >>> image, mask = torch.ones(1, 4, 4), torch.arange(4).expand(1, 4, 4) > 1
    >>> steps = PixelSteps(model.constrained_law, image, mask)
    >>> len(steps.sizes), tuple(steps.propose(steps.start(3).state, 0).shape)
    (8, (3, 1))
    """

    def __init__(
        self, constrained_law: Callable[[Image, Mask], AutoregressiveImage], image: Image, mask: Mask
    ):
        self.constrained_law = constrained_law
        with torch.no_grad():
            self.law = constrained_law(image, mask.expand(image.shape))
        seen_image = self.law.complete(image)
        self.image, self.device = seen_image.reshape(-1, *seen_image.shape[-3:]), seen_image.device
        self.seen = mask.expand(self.image.shape[1:])
        self.at = (~self.seen).any(0).nonzero()
        self.places: list[tuple[int, int]] = [(row, column) for row, column in self.at.tolist()]
        self.sizes = (len(self.seen),) * len(self.places)
        known = self.seen.any(0).nonzero().tolist()
        self.last_seen: tuple[int, int] = (known[-1][0], known[-1][1]) if known else (-1, -1)

    def start(self, count: int) -> Extended:
        """Score what is seen before the first hidden pixel, once for all particles of a chain."""
        chains = len(self.image)
        images = self.image.clone()
        network = IncrementalPixelCNN(self.law.network, chains)
        state, scored, _ = self._reached(
            Filling(images, network, images.new_zeros(chains, 0), images.new_zeros(chains)), 0
        )
        owner = torch.arange(chains, device=self.device).repeat_interleave(count // chains)
        state = self.select(state, owner)
        return Extended(state, scored[owner], state.twist)

    def propose(self, state: Filling, step: int) -> Tensor:
        """Draw the hidden channels of a pixel from the constrained law, one given those before it."""
        row, column = self.places[step]
        outputs, pixel = self._constrained(state.outputs, step), state.images[:, :, row, column].clone()
        for channel in (~self.seen[:, row, column]).nonzero().flatten().tolist():
            pixel[:, channel] = self.law.draw_level(outputs, pixel, channel)
        return pixel

    def extend(self, state: Filling, step: int, value: Tensor) -> Extended:
        """Fill in a pixel, weigh it, and go on to the next hidden one, past the seen ones between."""
        row, column = self.places[step]
        law, seen = self.law.law, self.seen[:, row, column]
        value = torch.where(seen, state.images[:, :, row, column], value)
        log_prior = law.log_prob(state.outputs, value)
        log_proposal = law.log_prob(self._constrained(state.outputs, step), value, self.law.temperature)
        log_ratio = log_prior.sum(1) - torch.where(seen, 0.0, log_proposal).sum(1)
        state.images[:, :, row, column] = value
        state, scored, passed = self._reached(state, step + 1)
        increment = log_ratio + scored
        share = math.exp(-passed / (_MEMORY * self.image.shape[-1]))
        following = self.places[step + 1] if step + 1 < len(self.places) else self.last_seen
        twist = share * state.twist - increment
        if following > self.last_seen:
            twist = torch.zeros_like(twist)
        return Extended(replace(state, twist=twist), increment, twist)

    def select(self, state: Filling, index: Tensor) -> Filling:
        """Return the images of an index, with what the network has computed of them."""
        state.network.select(index)
        parts = state.images, state.outputs, state.twist
        images, outputs, twist = (part.index_select(0, index) for part in parts)
        return Filling(images, state.network, outputs, twist)

    def latents(self, path: Tensor) -> dict[str, Tensor]:
        """Return the complete images, site ``hidden``; paths are ``(chain, dim)`` where each chain sees another."""
        image = self.image[0] if len(self.image) == 1 else self.image
        images = image.expand(*path.shape[:-1], *self.seen.shape).clone()
        rows, columns = self.at.unbind(1)
        values = path.unflatten(-1, (-1, len(self.seen))).movedim(-1, -2)
        known = images[..., rows, columns]
        images[..., rows, columns] = torch.where(self.seen[:, rows, columns], known, values)
        return {"hidden": images}

    def windows(self) -> list[Tensor]:
        """Return all steps, then those of squares that tile the image, their corner and order drawn."""
        steps = torch.arange(len(self.places), device=self.device)
        corner = torch.randint(_WINDOW, (2,), device=self.device)
        tile = (self.at + corner) // _WINDOW
        number = tile[:, 0] * self.image.shape[-1] + tile[:, 1]
        numbers = number.unique()
        if len(numbers) == 1:
            return [steps]
        order = torch.randperm(len(numbers), device=self.device)
        return [steps, *(steps[number == one] for one in numbers[order])]

    def given(self, path: Tensor, window: Tensor) -> PixelSteps:
        """Return the steps of a window, all other pixels being as they are on each chain's path ``(chain, dim)``."""
        fixed = torch.ones(len(self.at), dtype=torch.bool, device=self.device)
        fixed[window] = False
        rows, columns = self.at[fixed].unbind(1)
        seen = self.seen.clone()
        seen[:, rows, columns] = True
        return PixelSteps(self.constrained_law, self.latents(path)["hidden"], seen)

    def statistics(self, path: Tensor) -> dict[str, Tensor]:
        """Return ``lp``, the prior network's log density of the complete images, in one pass of it."""
        prior = AutoregressiveImage(self.law.network, self.law.law)
        return {"lp": prior.log_prob(self.latents(path)["hidden"])}

    def _constrained(self, outputs: Tensor, step: int) -> Tensor:
        """Return the outputs for the pixel of a step, with what the constraint adds where there is more to come."""
        row, column = self.places[step]
        if self.law.constraint is None or (row, column) > self.last_seen:
            return outputs
        added = self.law.constraint[..., row, column].reshape(-1, outputs.shape[1])
        return outputs + added.repeat_interleave(len(outputs) // len(added), 0)

    def _reached(self, state: Filling, step: int) -> tuple[Filling, Tensor, int]:
        """Go on to the hidden pixel of a step, or to the end; return the seen pixels' log density and number."""
        height, width = self.image.shape[-2:]
        target = self.places[step] if step < len(self.places) else (height - 1, width)
        network, images, outputs = state.network, state.images, state.outputs
        scored, passed = images.new_zeros(len(images)), 0
        while True:
            if network.row < 0 or (network.column == width and network.row < target[0]):
                network.begin_row(images, network.row + 1)
            first, row = network.column, network.row
            stop = min(target[1] + 1, width) if row == target[0] else width
            if first < stop:
                raw = network.advance_all(images, stop)
                outputs = raw[:, :, -1]
                scores = raw[:, :, : target[1] - first] if row == target[0] else raw
                if scores.shape[2]:
                    pixels = images[:, :, row, first : first + scores.shape[2]]
                    scored = scored + self.law.law.log_prob(scores, pixels).sum((1, 2))
                    passed += scores.shape[2]
            if row == target[0]:
                return replace(state, outputs=outputs), scored, passed
