r"""Laws of one pixel on a lattice of levels 0, 1/(K-1), ..., 1, given what a network says of it.

Channels of a pixel come one after another (red, green, blue), each given those before it: the network's output holds
for every pair of channels coefficients by which the earlier one shifts the later one's law (Salimans et al. 2017,
*PixelCNN++*, section 2.2), so that one pass of the network serves all of them.
"""

from __future__ import annotations

import json
import math

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CategoricalPixels", "LogisticMixturePixels", "PixelLaw", "law_from"]


class PixelLaw:
    """What both laws share: the lattice, and the law of one temperature from that of another."""

    def __init__(self, levels: int):
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(f"levels={levels!r}; expected a whole number of at least 2")
        self.levels = levels

    def configuration(self) -> dict[str, int]:
        """Return the arguments that make this law again."""
        return {"levels": self.levels}

    def to_json(self) -> str:
        """Return name and arguments, from which :func:`law_from` makes the law again."""
        return json.dumps({"name": type(self).__name__, **self.configuration()})

    def __repr__(self) -> str:
        """Return name and arguments."""
        arguments = ", ".join(f"{name}={value}" for name, value in self.configuration().items())
        return f"{type(self).__name__}({arguments})"

    def outputs(self, channels: int) -> int:
        """Return how many numbers the network gives for each pixel."""
        raise NotImplementedError

    def log_probabilities(self, raw: Tensor, image: Tensor) -> Tensor:
        """Return log p(level) of every channel given the channels before it.

        Parameters
        ----------
        raw
            Network's output ``(n, outputs, *place)``.
        image
            Values in [0, 1], ``(n, channel, *place)``; of a channel only the earlier ones are read.

        Returns
        -------
        Tensor
            ``(n, channel, *place, level)``, normalised over the last dim.
        """
        raise NotImplementedError

    def log_prob(self, raw: Tensor, image: Tensor, temperature: float = 1.0) -> Tensor:
        """Return log p of the image's own values, ``(n, channel, *place)``, in nats."""
        table = self.log_probabilities(raw, image)
        if temperature != 1.0:
            table = torch.log_softmax(table / temperature, dim=-1)
        return table.gather(-1, self.index(image)[..., None])[..., 0]

    def index(self, image: Tensor) -> Tensor:
        """Return the nearest level of every value as a whole number."""
        return (image.detach() * (self.levels - 1)).round().long()

    def quantise(self, image: Tensor) -> Tensor:
        """Return the nearest value of the lattice.

        >>> CategoricalPixels(5).quantise(torch.tensor([0.1, 0.2, 1.0])).tolist()
        [0.0, 0.25, 1.0]
        """
        return self.index(image).to(image) / (self.levels - 1)


class CategoricalPixels(PixelLaw):
    """A probability for each of K levels: softmax of K logits a channel (van den Oord et al. 2016).

    Parameters
    ----------
    levels
        K, at least 2.

    Raises
    ------
    ValueError
        For fewer than two levels.

    Examples
    --------
    >>> law = CategoricalPixels(levels=2)
    >>> round(law.log_prob(torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[1.0]])).exp().item(), 4)
    0.75
    """

    def outputs(self, channels: int) -> int:
        """Count K for every channel and for every pair of channels."""
        return self.levels * (channels + _pairs(channels))

    def log_probabilities(self, raw: Tensor, image: Tensor) -> Tensor:
        """See :meth:`PixelLaw.log_probabilities`."""
        channels = image.shape[1]
        parts = raw.unflatten(1, (-1, self.levels)).movedim(2, -1)
        logits = []
        for channel in range(channels):
            own = parts[:, channel]
            for earlier in range(channel):
                slope = parts[:, channels + _pairs(channel) + earlier]
                own = own + slope * (2 * image[:, earlier, ..., None] - 1)
            logits.append(own)
        return torch.log_softmax(torch.stack(logits, dim=1), dim=-1)


class LogisticMixturePixels(PixelLaw):
    r"""A mixture of logistics, integrated over the bin of each level (Salimans et al. 2017, equation 2).

    .. math:: p(x) = \sum_k \pi_k \left[\mathrm{sigm}\frac{x + h - \mu_k}{s_k}
              - \mathrm{sigm}\frac{x - h - \mu_k}{s_k}\right]

    with h half a bin; the outermost bins reach to infinity. Each channel has its own weights, so that every channel's
    law given the earlier ones is at hand, and a mask may hide any of them.

    Parameters
    ----------
    levels
        K, of which a mixture needs no more parameters when it grows; 256 by default.
    components
        Logistics a channel.

    Raises
    ------
    ValueError
        For fewer than two levels or no component.

    Examples
    --------
    >>> law = LogisticMixturePixels(levels=256, components=3)
    >>> table = law.log_probabilities(torch.randn(1, law.outputs(1), 2, 2), torch.rand(1, 1, 2, 2))
    >>> tuple(table.shape), bool((table.exp().sum(-1) - 1).abs().max() < 1e-5)
    ((1, 1, 2, 2, 256), True)
    """

    def __init__(self, levels: int = 256, components: int = 5):
        super().__init__(levels)
        if components < 1:
            raise ValueError(f"components={components}; expected at least 1")
        self.components = components

    def configuration(self) -> dict[str, int]:
        """Return the arguments that make this law again."""
        return {"levels": self.levels, "components": self.components}

    def outputs(self, channels: int) -> int:
        """Count a weight, a mean, a scale for every channel and component; a coefficient for every pair."""
        return self.components * (3 * channels + _pairs(channels))

    def log_probabilities(self, raw: Tensor, image: Tensor) -> Tensor:
        """See :meth:`PixelLaw.log_probabilities`."""
        every = torch.linspace(0.0, 1.0, self.levels, dtype=raw.dtype, device=raw.device)
        return self._log_prob_of(every, raw, image)

    def log_prob(self, raw: Tensor, image: Tensor, temperature: float = 1.0) -> Tensor:
        """See :meth:`PixelLaw.log_prob`; without the table of all levels where it is not needed."""
        if temperature != 1.0:
            return super().log_prob(raw, image, temperature)
        return self._log_prob_of(self.quantise(image)[..., None], raw, image)[..., 0]

    def _log_prob_of(self, values: Tensor, raw: Tensor, image: Tensor) -> Tensor:
        """Log p of ``values``, which broadcast to ``(n, channel, *place, value)``."""
        channels = image.shape[1]
        parts = raw.unflatten(1, (-1, self.components)).movedim(2, -1)
        weight, mean, scale, coefficient = parts.split([channels] * 3 + [_pairs(channels)], dim=1)
        # Components begin apart from each other, and with scales of the image's own size.
        apart = torch.linspace(-1, 1, self.components + 2, dtype=raw.dtype, device=raw.device)[1:-1]
        means = []
        for channel in range(channels):
            own = mean[:, channel] + apart
            for earlier in range(channel):
                slope = torch.tanh(coefficient[:, _pairs(channel) + earlier])
                own = own + slope * (2 * image[:, earlier, ..., None] - 1)
            means.append(own)
        precision = torch.exp(2.0 - scale).clamp(max=math.exp(7.0))[..., None, :]
        centred = 2 * values[..., None] - 1 - torch.stack(means, dim=1)[..., None, :]
        half = 1 / (self.levels - 1)
        upper, lower = precision * (centred + half), precision * (centred - half)
        # sigm(u) - sigm(l) = sigm(u) sigm(-l) (1 - exp(l - u)), each factor of which is safe to take the log of.
        below, above = F.logsigmoid(upper), F.logsigmoid(-lower)
        inside = below + above + torch.log(-torch.expm1(-2 * half * precision))
        at_bottom, at_top = (values < half / 2)[..., None], (values > 1 - half / 2)[..., None]
        log_prob = torch.where(at_bottom, below, torch.where(at_top, above, inside))
        return torch.logsumexp(log_prob + torch.log_softmax(weight, dim=-1)[..., None, :], dim=-1)


def law_from(words: str) -> PixelLaw:
    """Return the law that :meth:`PixelLaw.to_json` described.

    Raises
    ------
    ValueError
        For words that describe no law of this file.

    >>> law_from(CategoricalPixels(4).to_json())
    CategoricalPixels(levels=4)
    """
    kinds = {kind.__name__: kind for kind in (CategoricalPixels, LogisticMixturePixels)}
    try:
        arguments = json.loads(words)
        return kinds[arguments.pop("name")](**arguments)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError):
        raise ValueError(
            f"{words[:80]!r} is no law of pixels; expected one of {', '.join(kinds)} with its arguments"
        ) from None


def _pairs(channels: int) -> int:
    """Return the number of pairs of channels, which is also the place of the first pair that a later one is in."""
    return channels * (channels - 1) // 2
