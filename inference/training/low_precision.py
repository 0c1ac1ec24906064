"""Computing networks in bfloat16 where that is faster."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

__all__ = ["low_precision"]


def low_precision(device: torch.device, wanted: bool) -> AbstractContextManager:
    """Return a context in which networks compute in bfloat16, if it is wanted and the processor can.

    On processors without instructions for it the same products are emulated, and cost 13 times those of single
    precision (measured for a denoiser on a processor with AVX2).

    Examples
    --------
    >>> with low_precision(torch.device("cpu"), wanted=False):
    ...     product = torch.ones(2, 2) @ torch.ones(2, 2)
    >>> product.dtype
    torch.float32
    """
    has = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16) if wanted and has else nullcontext()
