"""Time this checkout against another one, turn and turn about: the same calls, draws and random seeds.

    OMP_NUM_THREADS=1 python tests/benchmarks/speed_against.py --other FOLDER [--quick] [--pairs 5] [--only ChEES]

Each checkout has one process, which keeps its models and waits while the other works. Seconds are CPU seconds, which
other work on the machine hardly lengthens. Where two checkouts draw other random numbers they may ask for other numbers
of gradients, so that what a gradient costs is given too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parents[2]
CASES = (
    "ChEES, 16 chains",
    "MALA, 16 chains",
    "ParallelTempering",
    "TemperedSMC",
    "NUTS, 1 chain",
    "TwoStage, Bayesian decoder",
    "infer_many, ChEES, 25 images",
    "Exact, Gaussian process 64 x 64",
)
LIMIT = 1.05  # of a ratio: above it a case counts as slower
Measured = dict[str, float]


class Checkout:
    """A process that runs one checkout's code, a case at a time."""

    def __init__(self, folder: Path, links: Path):
        package = links / "posterior_inpainting"
        package.mkdir(parents=True)
        for half in ("models", "inference"):
            (package / half).symlink_to(folder / half)
        environment = os.environ | {"PYTHONPATH": str(links), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--worker"],
            env=environment, cwd=links, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.folder = Path(json.loads(self._answer())["inference"]).resolve().parent
        if self.folder != folder.resolve():
            raise RuntimeError(f"{self.folder} was imported; expected {folder}")

    def measure(self, case: str) -> Measured:
        """Run a case once: CPU seconds and gradients."""
        self.process.stdin.write(f"{case}\n")
        self.process.stdin.flush()
        return json.loads(self._answer())

    def end(self) -> None:
        """Let the process end."""
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("the process of a checkout has died; see its error above")
        return line


def work() -> None:
    """Be the process of the checkout that is imported: answer each case's name with what it took."""
    import torch

    from posterior_inpainting import inference

    torch.set_num_threads(1)
    print(json.dumps({"inference": str(Path(inference.__file__).parent)}), flush=True)
    runs = calls()
    for line in sys.stdin:
        run = runs[line.strip()]
        start = time.process_time()
        found = run()
        seconds = time.process_time() - start
        found = found if isinstance(found, list) else [found]
        gradients = sum(one.attrs["gradient_evaluations"] for one in found)
        print(json.dumps({"seconds": seconds, "gradients": gradients}), flush=True)


def calls() -> dict[str, Callable[[], Any]]:
    """Return every case as a call; names and settings are those that both checkouts know."""
    import torch

    from posterior_inpainting import inference
    from posterior_inpainting.inference import MALA, NUTS, ChEES, Exact, ParallelTempering, TemperedSMC
    from posterior_inpainting.models import LatentCode, Observation, datasets, observations, pretrained
    from posterior_inpainting.models.bayesian_decoder import BayesianDecoder
    from posterior_inpainting.models.code_and_units import CodeAndUnits
    from posterior_inpainting.models.gaussian_process import GaussianProcess

    # What `TwoStage` was called before.
    two_stage = vars(inference).get("TwoStage") or vars(inference)["Joint"]
    garments = datasets.load("fashion-mnist-samples")
    seen = [Observation(one, observations.half(one.shape, hide="bottom")) for one in garments[:25]]
    code = LatentCode(pretrained.load("fashion-mnist-vae"))
    units = CodeAndUnits(BayesianDecoder.load())
    torch.manual_seed(0)
    wide = torch.nn.functional.interpolate(garments[:1], size=(64, 64), mode="bilinear")[0].clamp(0, 1)
    half_of_wide = Observation(wide, observations.scatter(wide.shape, 0.5))
    process = GaussianProcess.fit(half_of_wide)

    def on(model, method, draws, chains, observation=seen[0]):
        options = {"draws": draws, "chains": chains, "seed": 0, "progress": False}
        return lambda: inference.infer(model, observation, method, **options)

    many = {"draws": 30, "chains": 4, "seed": 0, "progress": False}
    runs = (
        on(code, ChEES(warmup=100, max_steps=32), 150, 16),
        on(code, MALA(warmup=150, thin=5), 200, 16),
        on(code, ParallelTempering(temperatures=6, warmup=60), 100, 4),
        on(code, TemperedSMC(max_moves=3), 128, 2),
        on(code, NUTS(warmup=30), 30, 1),
        on(units, two_stage(ChEES(warmup=60, max_steps=32), warmup=60), 30, 8),
        lambda: inference.infer_many(code, seen, ChEES(warmup=60, max_steps=32), **many),
        on(process, Exact(), 200, 4, half_of_wide),
    )
    return dict(zip(CASES, runs, strict=True))


def ratios(pairs: list[tuple[Measured, Measured]]) -> list[float]:
    """Return ours over the other's: of the least seconds, median seconds, gradients, and median cost of a gradient."""
    ours, other = ([pair[side] for pair in pairs] for side in (0, 1))
    seconds = [[one["seconds"] for one in side] for side in (ours, other)]
    gradients = [median(one["gradients"] for one in side) for side in (ours, other)]
    found = [min(seconds[0]) / min(seconds[1]), median(a["seconds"] / b["seconds"] for a, b in pairs)]
    if not gradients[1]:
        return [*found, float("nan"), float("nan")]
    return [*found, gradients[0] / gradients[1], found[1] * gradients[1] / gradients[0]]


def row(case: str, pairs: list[tuple[Measured, Measured]]) -> list[str]:
    """Return one line of the table."""
    cells = []
    for side in (1, 0):  # the other first
        seconds = [pair[side]["seconds"] for pair in pairs]
        gradients = median(pair[side]["gradients"] for pair in pairs)
        cost = f"{1e6 * median(seconds) / gradients:.0f}" if gradients else ""
        cells += [f"{min(seconds):.2f} / {median(seconds):.2f}", f"{gradients:,.0f}", cost]
    shown = [f"{value:.2f}" if value == value else "" for value in ratios(pairs)]
    return [case, *cells, *shown]


def main() -> None:
    """Run all pairs, print and write the table."""
    import tables

    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--other", type=Path, required=True, help="root of the other checkout")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES)
    options = tables.parsed(parser)
    pairs, names = (1, CASES[:2]) if options.quick else (options.pairs, options.only or CASES)
    rows: list[list[str]] = []
    slower: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        both = [
            Checkout(f, Path(folder) / name)
            for name, f in (("ours", HERE), ("other", options.other.resolve()))
        ]
        for case in names:
            found = [tuple(one.measure(case) for one in both) for _ in range(pairs)]
            rows.append(row(case, found))
            slower += [case] if ratios(found)[1] > LIMIT else []
            print(" | ".join(rows[-1]), flush=True)
            write(options, rows, slower, pairs)
        for one in both:
            one.end()


def write(options: argparse.Namespace, rows: list[list[str]], slower: list[str], pairs: int) -> None:
    """Write what there is so far."""
    import tables

    head = ["call"]
    head += [
        f"{who}: {what}" for who in ("other", "this") for what in ("CPU s", "gradients", "us a gradient")
    ]
    head += ["ratio of least", "median ratio", "gradients", "a gradient"]
    verdict = f"More than {LIMIT} times as slow (median ratio): {', '.join(slower) or 'none'}."
    options.out.write_text(
        f"# This checkout against another\n\nBy `{tables.command(options)}`: {pairs} pair(s), turn and turn about.\n"
        f"{tables.measured_on()}\n\nCPU seconds: least / median. Ratios are this one's over the other's: of the least "
        f"seconds, the median of the pairs' ratios,\nof gradients, and of what a gradient costs.\n\n"
        f"{tables.markdown(head, rows)}\n\n{verdict}\n"
    )


if __name__ == "__main__":
    work() if "--worker" in sys.argv else main()
