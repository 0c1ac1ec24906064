r"""A joint density of code and image with an amortised guide: the one of the three forms that can be refined.

A variational autoencoder (Kingma & Welling 2014) whose encoder takes any mask:

.. math:: z \sim N(0, I), \qquad x_i \mid z \sim N(f(z)_i, \sigma(z)_i^2), \qquad q(z \mid \tilde x, M) \approx
          p(z \mid \tilde x) \propto p(z) \prod_{i \,\mathrm{seen}} p(x_i \mid z).

The guide plays the part of the published p(z | I_m), a draw in one pass. Unlike there, what it should be is written
down: MCMC over z starts from its draws (``ChEES(init="guide")``) and ends at the posterior of this very model.
"""

from __future__ import annotations

from pathlib import Path

from posterior_inpainting.models import pretrained
from posterior_inpainting.models.base import frozen
from posterior_inpainting.models.densities.pixel_density import PixelDensity, pixels_of
from posterior_inpainting.models.likelihoods import likelihood_of
from posterior_inpainting.models.networks.decoder import as_decoder
from posterior_inpainting.models.shapes import Image, Mask
from posterior_inpainting.models.variational_autoencoder import VariationalAutoencoder

__all__ = ["PluralisticJoint"]


class PluralisticJoint(VariationalAutoencoder):
    """The joint form: ``Variational()`` draws from q(z | x~), ``ChEES(init="guide")`` refines these draws.

    Train the decoder on whole images, ``train(model, model.guide, images)``; then freeze it,
    ``model.decoder.requires_grad_(False)``, and go on with masks, so that the encoder becomes q(z | x~).

    Parameters
    ----------
    decoder, encoder
        As for :class:`~posterior_inpainting.models.variational_autoencoder.VariationalAutoencoder`.

    Examples
    --------
    >>> import torch
    >>> from posterior_inpainting.models.networks import MaskedEncoder, MultilayerDecoder
    >>> model = PluralisticJoint(MultilayerDecoder(2, (1, 8, 8), (16,)), MaskedEncoder(2, (1, 8, 8), (16,)))
    >>> image, mask = torch.rand(1, 8, 8), torch.rand(1, 8, 8) < 0.5
    >>> tuple(model.guide(image, mask).shape)
    (2,)
    """

    @classmethod
    def load(cls, name: str | Path = "fashion-mnist-pluralistic-joint") -> PluralisticJoint:
        """Return a bundled one, or what ``pretrained.save_parts`` wrote to a folder; its decoder is frozen."""
        parts = pretrained.load_parts(name, "decoder", "encoder")
        model = cls(parts["decoder"], parts["encoder"]).eval()
        model.decoder.requires_grad_(False)  # what the posterior is of; the guide may be fitted to an image
        return model

    def log_densities(self, image: Image, mask: Mask | None = None) -> PixelDensity | None:
        """Return the same numbers as :meth:`forward` scores as a fast function, or ``None``.

        ``None`` for a decoder that cannot be restricted to some pixels.
        """
        decoder = as_decoder(frozen(self, "decoder"))
        if not decoder.has_restriction:
            return None
        return PixelDensity(decoder.restrict, pixels_of(likelihood_of(decoder), image, mask))
