"""The command line: complete an image, calibrate, score and compare approaches, train and list what there is."""

from posterior_inpainting.inference.cli import compare, complete, evaluate, listing, train
from posterior_inpainting.inference.cli.app import app, main

__all__ = ["app", "compare", "complete", "evaluate", "listing", "main", "train"]
