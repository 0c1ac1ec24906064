"""What every fully connected decoder has: smooth hidden layers, a sigmoid mean, and its gradient by hand.

How much noise there is around the mean is left to the decoders themselves: learnt with it
(``MultilayerDecoder``) or fitted afterwards (``Generator``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posterior_inpainting.models.networks.decoder import Decoder, PullBack, Restricted
from posterior_inpainting.models.shapes import Code, Image, ImageShape

__all__ = ["FullyConnectedDecoder", "RestrictedScale", "hidden_layers", "link_of"]

#: From the last hidden layer to the scales of some pixels, and the function that pulls their gradients back to it,
#: which is ``None`` where the scales are fixed.
RestrictedScale = Callable[[Tensor], tuple[Tensor, Callable[[Tensor], Tensor] | None]]


def hidden_layers(width: int, widths: Sequence[int]) -> nn.Sequential:
    """SiLU layers: smooth, so that the leapfrog integrator meets no kinks.

    >>> len(hidden_layers(3, (8, 8)))
    4
    """
    layers: list[nn.Module] = []
    for units in widths:
        layers += [nn.Linear(width, units), nn.SiLU()]
        width = units
    return nn.Sequential(*layers)


def link_of(likelihood: str) -> Callable[[Tensor], Tensor]:
    """Return the function from what a last layer says to pixel means; ``ValueError`` for an unknown likelihood.

    >>> link_of("censored_normal")(torch.tensor(-0.5)), link_of("normal")(torch.tensor(0.0))
    (tensor(-0.5000), tensor(0.5000))
    """
    if likelihood not in _LINKS:
        raise ValueError(f"likelihood={likelihood!r}; expected one of {', '.join(_LINKS)}")
    return _LINKS[likelihood][0]


class FullyConnectedDecoder(Decoder):
    """Abstract decoder from codes to pixel means; a subclass adds the scales.

    It writes ``_scale(hidden)``, from the last hidden layer ``(*batch, widths[-1])`` to the scales
    ``(*batch, channel, row, column)``, and ``_restricted_scale(pixels)``, the same for some pixels only.

    Parameters
    ----------
    latent
        Length of z.
    image_shape
        ``(channel, row, column)`` of what is decoded.
    widths
        Units of the hidden layers, first to last.
    likelihood
        ``"normal"``, with means in (0, 1), or ``"censored_normal"``, whose means before clipping are any numbers.

    Raises
    ------
    ValueError
        For another likelihood.
    """

    has_restriction = True

    def __init__(
        self, latent: int, image_shape: ImageShape, widths: Sequence[int], likelihood: str = "normal"
    ):
        super().__init__(latent, image_shape)
        self.widths = tuple(widths)
        link_of(likelihood)
        self.likelihood = likelihood
        self.trunk = hidden_layers(latent, widths)
        self.mean_head = nn.Linear(widths[-1], math.prod(image_shape))

    def configuration(self) -> dict:
        """Return the arguments that make this decoder again, as they are stored beside its weights."""
        return {"latent": self.latent, "image_shape": self.image_shape, "widths": self.widths}

    def forward(self, z: Code) -> Image:
        """Return the pixel means ``(*batch, channel, row, column)`` of codes ``(*batch, latent)``."""
        return self._mean(self.trunk(z))

    def scale(self, z: Code) -> Image:
        """Return the pixel scales ``(*batch, channel, row, column)`` of codes ``(*batch, latent)``."""
        return self._scale(self.trunk(z))

    def mean_and_scale(self, z: Code) -> tuple[Image, Image]:
        """Return means and scales with one pass through the shared hidden layers."""
        hidden = self.trunk(z)
        return self._mean(hidden), self._scale(hidden)

    def link(self, raw: Tensor) -> Tensor:
        """Return means of what the last layer says."""
        return link_of(self.likelihood)(raw)

    def restrict(self, pixels: Tensor) -> Restricted:
        """Return a function from codes to means and scales ``(*batch, len(pixels))`` of some pixels only.

        The last layer is most of the work, and a posterior needs it only where pixels are seen. The third
        result is the chain rule by hand; the weights are those at the time of the call.

        Parameters
        ----------
        pixels
            Indices into the flattened ``(channel, row, column)``.
        """
        linear = [layer for layer in self.trunk if isinstance(layer, nn.Linear)]
        layers = [(layer.weight.detach(), layer.bias.detach()) for layer in linear]
        mean_weight, mean_bias = self.mean_head.weight[pixels].detach(), self.mean_head.bias[pixels].detach()
        scale_of = self._restricted_scale(pixels)
        link, pull_back_link = _LINKS[self.likelihood]

        def decode(z: Code) -> tuple[Tensor, Tensor, PullBack]:
            """Decode codes at the pixels, and keep what the chain rule needs."""
            raw, hidden = [], z
            for weight, bias in layers:
                raw.append(F.linear(hidden, weight, bias))
                hidden = F.silu(raw[-1])
            mean = link(F.linear(hidden, mean_weight, mean_bias))
            scale, pull_back_scale = scale_of(hidden)

            def pull_back(mean_slope: Tensor, scale_slope: Tensor | None) -> Tensor:
                """Return the slope in the codes of slopes in mean and scale."""
                slope = pull_back_link(mean_slope, mean) @ mean_weight
                if pull_back_scale is not None and scale_slope is not None:
                    slope = slope + pull_back_scale(scale_slope)
                for (weight, _), before in zip(reversed(layers), reversed(raw), strict=True):
                    slope = torch.ops.aten.silu_backward(slope, before) @ weight
                return slope

            return mean, scale, pull_back

        return decode

    def _mean(self, hidden: Tensor) -> Image:
        return self.link(self.mean_head(hidden)).unflatten(-1, self.image_shape)

    def _scale(self, hidden: Tensor) -> Image:
        raise NotImplementedError

    def _restricted_scale(self, pixels: Tensor) -> RestrictedScale:
        raise NotImplementedError


#: Likelihood -> from the last layer to means, and from slopes and means to slopes of the last layer.
_LINKS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "normal": (torch.sigmoid, torch.ops.aten.sigmoid_backward),
    "censored_normal": (lambda raw: raw, lambda slope, mean: slope),
}
