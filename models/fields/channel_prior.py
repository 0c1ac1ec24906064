r"""How the channels of photographs go together: a Gaussian law of a pixel's mean and covariance over channels.

In an order of channels c = 1 ... C, with covariance :math:`S = L L^\top`, the coordinates of an image are

.. math:: \phi = (m_c,\ \log L_{cc},\ L_{cd} / L_{dd} \ \mathrm{for}\ d < c)

the means, the log sd of what a channel has beyond those before it, and its slopes on their innovations (the modified
Cholesky decomposition of Pourahmadi 1999): free numbers all, and no slope knows of contrast. They are taken to be
Gaussian over images, with the moments of the images that were learnt from. Where a channel is not seen at all, the law
of its coordinates given the others' is all that is known of it, and what they leave open is part of its variance.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Image

__all__ = ["ChannelPrior", "channel_prior", "coordinates", "moments", "words_of_unseen"]

#: Smallest sd of a channel given those before it, in the image's units: half a grey level of 8 bits.
_LEAST = 0.002
#: Draws over which the coordinates of unseen channels are averaged.
_DRAWS = 4096


@dataclass(frozen=True, eq=False)
class ChannelPrior:
    """Gaussian over the coordinates phi of images, by the moments of some.

    Parameters
    ----------
    means, covariances
        Of the channels of each image that was learnt from, ``(n, channel)`` and ``(n, channel, channel)``, float64.
    source
        What those images are, in words.

    Examples
    --------
    >>> colours = ChannelPrior.of_photographs()
    >>> location, covariance = colours.law([1, 0, 2])  # green, red, blue
    >>> [round(float(slope), 1) for slope in location[6:8]], tuple(covariance.shape)  # of red and blue on green
    ([0.9, 0.9], (9, 9))
    """

    means: Tensor
    covariances: Tensor
    source: str = "the images of `colours`"

    @classmethod
    def learn(cls, images: Iterable[Image]) -> ChannelPrior:
        """Take the moments of images ``(channel, row, column)``, of any sizes.

        Raises
        ------
        ValueError
            For fewer images than there are coordinates, and one.
        """
        pixels = [image.flatten(1).double() for image in images]
        channels = len(pixels[0]) if pixels else 0
        if len(pixels) <= channels * (channels + 3) / 2:
            raise ValueError(
                f"{len(pixels)} images of {channels} channels; expected more than phi has entries"
            )
        means = torch.stack([one.mean(1) for one in pixels])
        return cls(means, torch.stack([one.cov(correction=0).reshape(channels, channels) for one in pixels]))

    @classmethod
    def of_photographs(cls) -> ChannelPrior:
        """Load the moments of red, green and blue in windows of the nine licensed photographs.

        They are ``ChannelPrior.learn(models.images.photographs.windows())``; ``tests/benchmarks/colourisation.py
        --learn`` writes them.
        """
        stored = resources.files("posterior_inpainting.models") / "samples" / "colours-of-photographs.npz"
        with resources.as_file(stored) as path, np.load(path) as parts:
            means, covariances = (torch.from_numpy(parts[name]).double() for name in ("means", "covariances"))
        return cls(means, covariances, "photographs")

    @property
    def channels(self) -> int:
        """How many channels an image has."""
        return self.means.shape[1]

    def law(self, order: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of phi with the channels in an order, float64."""
        least = _LEAST**2 * torch.eye(self.channels, dtype=torch.double, device=self.means.device)
        phi = coordinates(self.means[:, order], self.covariances[:, order][:, :, order] + least)
        return phi.mean(0), phi.T.cov()

    def unseen(self, order: Sequence[int], phi: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return mean and covariance of the channels of pixels where only the first ones are known.

        Both are the exact first two moments over :math:`p(\phi \mid \phi_{seen})`, up to an average over 4,096
        draws: an unseen channel is its mean slopes times the seen ones, and its variance holds what slopes, means and
        sds leave open.

        Parameters
        ----------
        order
            Of the channels, those that are seen before all others.
        phi
            Coordinates of which those of seen channels are read, as :meth:`law` has them.
        covariance
            Of the seen channels, ``(seen, seen)``: what the slopes multiply.
        """
        known, count = len(covariance), len(order)
        location, spread = (part.to(phi) for part in self.law(order))
        row, _ = _lower(count)
        every_channel = torch.arange(count, device="cpu")
        seen = (torch.cat([every_channel, every_channel, row]) < known).to(phi.device)
        gain = torch.linalg.solve(spread[seen][:, seen], spread[seen][:, ~seen]).T
        centre = location[~seen] + gain @ (phi[seen] - location[seen])
        left = spread[~seen][:, ~seen] - gain @ spread[seen][:, ~seen]
        generator = torch.Generator("cpu").manual_seed(0)
        half = torch.randn(_DRAWS // 2, len(centre), generator=generator, dtype=torch.double, device="cpu")
        white = torch.cat([half, -half]).to(phi)
        every = phi.expand(_DRAWS, -1).clone()
        every[:, ~seen] = centre + white @ torch.linalg.cholesky(left).T
        mean, factor = moments(every, count)
        below, own = factor[:, known:, :known], factor[:, known:, known:]
        slopes = torch.linalg.solve_triangular(factor[:, :known, :known], below, upper=False, left=False)
        slope = slopes.mean(0)
        apart = slopes - slope
        contrast = factor[0, :known, :known] @ factor[0, :known, :known].T
        rest = (own @ own.mT + apart @ contrast @ apart.mT).mean(0) + mean[:, known:].T.cov(correction=0)
        across = slope @ covariance
        whole = torch.cat(
            [torch.cat([covariance, across.T], 1), torch.cat([across, rest + across @ slope.T], 1)]
        )
        return mean.mean(0), (whole + whole.T) / 2


def coordinates(means: Tensor, covariances: Tensor) -> Tensor:
    """Return phi ``(n, entry)`` of means ``(n, channel)`` and covariances ``(n, channel, channel)``."""
    factor = torch.linalg.cholesky(covariances)
    innovation = factor.diagonal(dim1=-2, dim2=-1)
    row, column = _lower(means.shape[-1])
    return torch.cat([means, innovation.log(), (factor / innovation[:, None, :])[:, row, column]], -1)


def moments(phi: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Return means ``(*batch, channel)`` and the factor L ``(*batch, channel, channel)`` of phi ``(*batch, entry)``.

    >>> image = torch.rand(3, 8, 8, dtype=torch.double).flatten(1)
    >>> mean, factor = moments(coordinates(image.mean(1)[None], image.cov()[None]), 3)
    >>> float((factor[0] @ factor[0].T - image.cov()).abs().max()) < 1e-12
    True
    """
    mean, innovation, slopes = phi.split([channels, channels, phi.shape[-1] - 2 * channels], -1)
    row, column = _lower(channels)
    # Each slope in its place, in a way that has a gradient.
    place = slopes.new_zeros(len(row), channels, channels)
    place[torch.arange(len(row), device="cpu"), row, column] = 1
    unit = torch.eye(channels, dtype=phi.dtype, device=phi.device)
    return mean, (unit + torch.einsum("...k,kij->...ij", slopes, place)) * innovation.exp().unsqueeze(-2)


def channel_prior(colours: ChannelPrior | str | None, channels: int) -> ChannelPrior | None:
    """Return the prior that is meant: ``"photographs"`` is theirs where there are three channels, and none otherwise.

    Raises
    ------
    ValueError
        For another name, or a prior of another number of channels.
    """
    if isinstance(colours, ChannelPrior):
        if colours.channels != channels:
            raise ValueError(
                f"colours is of {colours.channels} channels; expected {channels}, as the image has"
            )
        return colours
    if colours not in ("photographs", None):
        raise ValueError(f"colours={colours!r}; expected a ChannelPrior, 'photographs' or None")
    return ChannelPrior.of_photographs() if colours and channels == 3 else None


def words_of_unseen(unseen: Sequence[int], channels: int, prior: ChannelPrior | None) -> str:
    """Say what the law of channels rests on that are not seen at all.

    >>> words_of_unseen([0, 2], 3, None)
    'of 3 channels, 0 and 2 not seen at all: how they go with the others is assumed, not learnt from this image'
    """
    basis = "assumed" if prior is None else f"that of {prior.source}"
    return (
        f"of {channels} channels, {' and '.join(map(str, unseen))} not seen at all: how they go with the others is "
        f"{basis}, not learnt from this image"
    )


def _lower(channels: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns of the entries of a matrix below its diagonal, as phi has them."""
    row, column = torch.tril_indices(channels, channels, -1, device="cpu")
    return row, column
