"""Diffusion priors: images as what a denoiser makes of noise, step by step."""

from posterior_inpainting.models.diffusion.diffusion_prior import DiffusionPrior

__all__ = ["DiffusionPrior"]
