"""Whether a generator's images are like real ones, and as various: three figures that need no other network.

Each is read beside its value for real images against other real images, which is what a perfect generator gets.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posterior_inpainting.models.shapes import Image

__all__ = ["class_shares", "coverage_of_real", "frechet_distance"]


def coverage_of_real(real: Image, generated: Image, neighbours: int = 5) -> float:
    """Share of real images with a generated one nearer than their k-th real neighbour (Naeem et al. 2020).

    Near 1 - 2**-k for as many images of the same law; low where the generator has lost modes.

    Parameters
    ----------
    real, generated
        ``(n, channel, row, column)`` and ``(m, ...)``, compared pixel by pixel.
    neighbours
        k.

    >>> points = torch.arange(8.0).reshape(8, 1, 1, 1)
    >>> coverage_of_real(points, points[:1].expand(8, 1, 1, 1), neighbours=1)
    0.125
    """
    real, generated = real.flatten(1), generated.flatten(1)
    # The nearest of all is the image itself.
    radius = torch.cdist(real, real).kthvalue(neighbours + 1, 1).values
    return float((torch.cdist(real, generated).min(1).values < radius).float().mean())


def frechet_distance(real: Image, generated: Image, components: int = 50) -> float:
    """Squared Frechet distance of the Gaussians with the moments of both, in the real images' principal components.

    The formula of the FID (Heusel et al. 2017) on linear features: it sees means and covariances of pixels, not
    what a classifier sees, and is not to be compared with FIDs.

    >>> images = torch.rand(200, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    >>> round(frechet_distance(images, images + 0.5, components=4), 3)
    1.0
    """
    real, generated = real.flatten(1).double(), generated.flatten(1).double()
    axes = torch.linalg.eigh(torch.cov(real.T)).eigenvectors[:, -components:]
    first, second = real @ axes, generated @ axes
    covariances = torch.cov(first.T), torch.cov(second.T)
    root = _root(covariances[0])
    # The trace of (A B)^(1/2) is that of (A^(1/2) B A^(1/2))^(1/2), which is symmetric.
    cross = torch.linalg.eigvalsh(root @ covariances[1] @ root).clamp(min=0).sqrt().sum()
    means = (first.mean(0) - second.mean(0)).square().sum()
    return float(means + covariances[0].trace() + covariances[1].trace() - 2 * cross)


def class_shares(generated: Image, real: Image, labels: Tensor) -> Tensor:
    """Share of each class among generated images, each of the class of its nearest real image: ``(class,)``.

    >>> class_shares(torch.rand(4, 1, 2, 2), torch.zeros(1, 1, 2, 2), torch.tensor([1]))
    tensor([0., 1.])
    """
    nearest = torch.cdist(generated.flatten(1), real.flatten(1)).argmin(1)
    return torch.bincount(labels[nearest], minlength=int(labels.max()) + 1) / len(generated)


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
