"""The command line: complete an image, calibrate, score and compare approaches, train what is bundled."""

from posterior_inpainting.inference.cli import compare, complete, evaluate, train
from posterior_inpainting.inference.cli.app import app, main

__all__ = ["app", "compare", "complete", "evaluate", "main", "train"]
