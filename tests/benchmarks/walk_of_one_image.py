"""Follow one image from the command line to its picture: which functions it passes, in order.

    python tests/benchmarks/walk_of_one_image.py [--out tests/benchmarks/walk_of_one_image.md]

A step is a call from one of our files into another; what a step does inside its own file, and what the models,
densities and methods do in their loops, is left out. A function that is passed twice from the same place is named.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Layers whose inside is a loop: entering them is a step, what they call is not.
LOOPS = ("methods", "density", "models")
COMMAND = ("complete", "sample:fashion-mnist/0", "--mask", "half:bottom", "--warmup", "20", "--draws", "20")


def layer_of(file: str) -> str:
    """Return the folder of one of our files below its half, the file's own name at the top of it."""
    parts = Path(file).relative_to(ROOT).with_suffix("").parts
    return "models" if parts[0] == "models" else parts[1]


class Walk:
    """A profile function that writes down every step."""

    def __init__(self):
        self.steps: list[tuple[str, str]] = []

    def __call__(self, frame, event, _):
        """Note a call from one of our files into another."""
        if event != "call" or not self._is_ours(frame):
            return
        caller = frame.f_back
        while caller is not None and not self._is_ours(caller):
            caller = caller.f_back
        name = frame.f_code.co_qualname
        inside = caller is not None and caller.f_code.co_filename == frame.f_code.co_filename
        hidden = "<" in name or name.split(".")[-1].startswith("_") or inside
        if hidden or caller is None or layer_of(caller.f_code.co_filename) in LOOPS:
            return
        file = Path(frame.f_code.co_filename).relative_to(ROOT).as_posix()
        self.steps.append((f"{file}: {name}", caller.f_code.co_qualname))

    @staticmethod
    def _is_ours(frame) -> bool:
        return frame.f_code.co_filename.startswith((f"{ROOT}/models/", f"{ROOT}/inference/"))


def main() -> None:
    """Complete an image under the eye of a profile function, and write the steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    options = parser.parse_args()
    from posterior_inpainting.inference.cli import main as command_line

    walk = Walk()
    with tempfile.TemporaryDirectory() as folder:
        sys.argv = ["posterior-inpainting", *COMMAND, "--out", folder]
        sys.setprofile(walk)
        try:
            command_line()
        except SystemExit:
            pass
        finally:
            sys.setprofile(None)
    once = list(dict.fromkeys(step for step, _ in walk.steps))
    again = {step: count for step, count in Counter(step for step, _ in walk.steps).items() if count > 1}
    lines = [f"{number}. `{step}`" for number, step in enumerate(once, start=1)]
    said = "".join(f"\n- `{step}`: {count} times" for step, count in again.items()) or " none."
    text = f"# From the command line to the picture\n\n    posterior-inpainting {' '.join(COMMAND)}\n\n"
    text += "\n".join(lines) + f"\n\nPassed more than once:{said}\n"
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
