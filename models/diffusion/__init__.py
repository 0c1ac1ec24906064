"""Diffusion priors: images as what a denoiser makes of noise, step by step."""

from posterior_inpainting.models.diffusion.diffusion_prior import DiffusionPrior
from posterior_inpainting.models.diffusion.few_step_decoder import FewStepDecoder

__all__ = ["DiffusionPrior", "FewStepDecoder"]
