"""The bundled networks by name: what each is, and the data that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRIORS", "PriorEntry"]


@dataclass(frozen=True)
class PriorEntry:
    """One bundled set of networks; ``pretrained.card(name)`` says how it was trained and how good it is.

    Parameters
    ----------
    name
        Its name in ``pretrained`` and for ``train``.
    what
        What it is, in one line.
    data
        Data set that it was trained on.
    shape
        Of its images, ``(channel, row, column)``; 0 for any number.
    """

    name: str
    what: str
    data: str = "fashion-mnist"
    shape: tuple[int, int, int] = (1, 28, 28)

    @property
    def shapes(self) -> str:
        """Shape of its images, in words."""
        return " x ".join(str(extent or "any") for extent in self.shape).replace("any x any", "any")


_ENTRIES = (
    PriorEntry("digits-vae-2d", "variational autoencoder with a code of 2 numbers", "digits", (1, 8, 8)),
    PriorEntry("fashion-mnist-vae", "variational autoencoder with a code of 32 numbers"),
    PriorEntry("fashion-mnist-diffusion", "denoiser of images under noise of any level"),
    PriorEntry(
        "photographs-diffusion", "denoiser of images under noise of any level", "photographs", (3, 0, 0)
    ),
    PriorEntry("photographs-experts", "filters and the laws of their responses", "photographs", (3, 0, 0)),
    PriorEntry("fashion-mnist-bayesian-decoder", "decoder with random weights, and an encoder"),
    PriorEntry(
        "fashion-mnist-bayesian-completion", "network with random weights from seen pixels to all of them"
    ),
    PriorEntry("fashion-mnist-generator", "generator and discriminator of a GAN, noise and an encoder"),
    PriorEntry("fashion-mnist-pixels-16", "PixelCNN and constraint network, pixels of 16 levels"),
    PriorEntry("fashion-mnist-pixels-binary", "PixelCNN and constraint network, pixels black or white"),
    PriorEntry(
        "fashion-mnist-pluralistic-two-path", "pluralistic completion as published: two paths, attention"
    ),
    PriorEntry(
        "fashion-mnist-pluralistic-conditional", "pluralistic completion as a conditional autoencoder"
    ),
    PriorEntry("fashion-mnist-pluralistic-joint", "pluralistic completion as a joint density with a guide"),
    PriorEntry(
        "channels-generator",
        "decoder of meandering river channels, and the law of its codes",
        "MeanderingChannels (simulated)",
        (1, 64, 64),
    ),
)

#: Every bundled set by name.
PRIORS: dict[str, PriorEntry] = {one.name: one for one in _ENTRIES}
