"""Samplers of the field that guide a reverse diffusion towards what is seen: what they share, and what they are not.

Each runs the reverse chain once a draw, from noise alone, and bends every step towards the seen pixels by a rule of its
own. None of them draws from the posterior, however many steps there are: Zach et al. 2026 and the benchmark BIPSDA
(2025) measure by how much, and so does ``tests/benchmarks/diffusion_posteriors.py``. They are here to be compared with.
"""

from __future__ import annotations

from posterior_inpainting.inference.methods.reverse_chain import ReverseChain

__all__ = ["GuidedDiffusion"]


class GuidedDiffusion(ReverseChain):
    """Abstract method that bends a reverse diffusion of ``steps`` steps; its draws are independent, and approximate."""

    is_approximate = True
