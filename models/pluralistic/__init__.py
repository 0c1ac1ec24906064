"""Pluralistic completion in three forms: as published, as a conditional VAE, as a joint density with a guide."""

from posterior_inpainting.models.pluralistic.conditional import PluralisticConditional
from posterior_inpainting.models.pluralistic.joint import PluralisticJoint
from posterior_inpainting.models.pluralistic.two_path import Paths, PluralisticTwoPath, prior_scale

__all__ = ["Paths", "PluralisticConditional", "PluralisticJoint", "PluralisticTwoPath", "prior_scale"]
