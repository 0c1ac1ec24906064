"""Linear operators from images to what an instrument measures of them: cameras, grey films, lenses, tomographs.

Each is called with an image ``(*batch, channel, row, column)`` and has an ``adjoint``; ``A @ B`` is B and then A. A
``Measurement`` is what came out of one, with its noise.
"""

from posterior_inpainting.models.operators.blurring import blur
from posterior_inpainting.models.operators.from_deepinv import from_deepinv
from posterior_inpainting.models.operators.linear_operator import LinearOperator
from posterior_inpainting.models.operators.matrices import matrix, radon
from posterior_inpainting.models.operators.of_pixels import average, luminance, mask

__all__ = [
    "LinearOperator",
    "average",
    "blur",
    "from_deepinv",
    "luminance",
    "mask",
    "matrix",
    "radon",
]
