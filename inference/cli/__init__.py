"""The command line: complete an image, calibrate, score and compare approaches, learn priors, list what there is."""

from posterior_inpainting.inference.cli import compare, complete, evaluate, learn, listing, train
from posterior_inpainting.inference.cli.app import app, main

__all__ = ["app", "compare", "complete", "evaluate", "learn", "listing", "main", "train"]
