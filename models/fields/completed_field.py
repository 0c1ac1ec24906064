r"""Solving with the covariance C of the seen pixels by completing them: what is iterated for are the hidden ones.

On the whole torus the covariance of noisy pixels is a convolution, :math:`T = B \otimes K + s^2 I`, and so is its
inverse Q. With hidden pixels h (all of the torus beside the image among them) and seen ones o the inverse of a block is

.. math:: C^{-1} r = (Q\, u)_o, \qquad u_o = r, \quad Q_{hh} u_h = -Q_{ho}\, r :

:math:`u_h` is the mean of the hidden pixels given that r was seen (Rue & Held 2005, *Gaussian Markov Random Fields*,
theorem 2.5). It is found by conjugate gradients, preconditioned by :math:`(T^{1/2})_{hh}`: Q alone is slow where holes
are wide, T alone where they are scattered, and halfway is fast for both (40 to 120 iterations on photographs behind
strokes, boxes and scattered pixels, where iterations on C itself take 50 to 500).

What all pixels have in common, the floor of a kernel, is as large as a torus. It is taken out of T, and put back by
Woodbury's formula.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from posterior_inpainting.models.fields.circulant import CirculantEmbedding
from posterior_inpainting.models.fields.conjugate_gradients import conjugate_gradients
from posterior_inpainting.models.fields.seen_covariance import SeenCovariance, mixed
from posterior_inpainting.models.shapes import Image, Mask

__all__ = ["ConjugateGradients"]

#: What is left in T of the variance that all pixels share, over that of the longest wave.
_LEFT = 4.0
#: Tolerances from which single precision will do.
_SINGLE = 1e-6


class ConjugateGradients(SeenCovariance):
    """The route for large images: iterations that each cost four FFTs a channel, for all right-hand sides at once.

    Parameters
    ----------
    embedding, channels, noise, mask
        As for :class:`SeenCovariance`.
    tolerance
        Largest residual of any right-hand side, relative to its own length, in the equations of hidden pixels.
    iterations
        Iterations after which to give up.

    Raises
    ------
    RuntimeError
        From :meth:`solve`, where the tolerance is not reached.
    """

    def __init__(
        self,
        embedding: CirculantEmbedding,
        channels: Tensor,
        noise: Tensor,
        mask: Mask,
        tolerance: float = 3e-6,
        iterations: int = 1000,
    ):
        super().__init__(embedding, channels, noise, mask)
        self.tolerance, self.iterations = tolerance, iterations
        self.dtype = torch.float32 if tolerance >= _SINGLE else torch.float64
        self._variances, axes = torch.linalg.eigh(channels)
        spectrum = embedding.spectrum.clone()
        left = _LEFT * spectrum.flatten()[1:].max()
        self._common = float((spectrum[0, 0] - left).clamp(min=0)) / (embedding.torus[0] * embedding.torus[1])
        spectrum[0, 0] = torch.minimum(spectrum[0, 0], left)
        noisy = self._variances[:, None, None] * spectrum + noise**2
        self._axes, self._precision = axes.to(self.dtype), (1 / noisy).to(self.dtype)
        self._root = noisy.sqrt().to(self.dtype)
        self._seen = mask.to(channels)
        self._hidden = 1 - self._on_torus(self._seen)

    def solve(self, right: Image) -> Image:
        """Solve until the slowest right-hand side has converged."""
        right = right * self._seen
        found = self._without_common(right)
        if not self._common:
            return found
        levels, solved, small = self._levels
        shares = torch.linalg.solve(small, torch.einsum("kchw,nchw->kn", levels, found))
        return found - torch.einsum("kn,kchw->nchw", shares, solved)

    @functools.cached_property
    def _levels(self) -> tuple[Image, Image, Tensor]:
        """What each axis of the channels has in common over all seen pixels, solved for, and Woodbury's matrix."""
        levels = self._axes.T.to(self._seen)[:, :, None, None] * self._seen
        solved = self._without_common(levels)
        inner = torch.einsum("kchw,lchw->kl", levels, solved)
        return levels, solved, inner + torch.diag(1 / (self._common * self._variances))

    def _without_common(self, right: Image) -> Image:
        """Solve for images that are 0 where hidden, in a field whose pixels have less in common."""
        seen = self._on_torus(right)
        hidden = conjugate_gradients(
            lambda u: self._filtered(u, self._precision).mul_(self._hidden),
            lambda u: self._filtered(u, self._root).mul_(self._hidden),
            self._filtered(seen, self._precision).mul_(self._hidden).neg_(),
            self.tolerance,
            self.iterations,
        )
        rows, columns = self.embedding.grid
        found = self._filtered(seen.add_(hidden), self._precision)[..., :rows, :columns]
        return found.to(right) * self._seen

    def _filtered(self, image: Image, gain: Tensor) -> Image:
        waves = torch.fft.rfft2(mixed(self._axes.T, image)).mul_(gain)
        return mixed(self._axes, torch.fft.irfft2(waves, s=self.embedding.torus))

    def _on_torus(self, image: Image) -> Image:
        rows, columns = (
            whole - part for whole, part in zip(self.embedding.torus, self.embedding.grid, strict=True)
        )
        return torch.nn.functional.pad(image.to(self.dtype), (0, columns, 0, rows))
