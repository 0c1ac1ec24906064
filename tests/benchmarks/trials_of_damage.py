"""Runs that are killed, raced and damaged, many times over: writes `trials_of_damage.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/trials_of_damage.py [--quick]

Each trial is a process of its own that draws into a store, or a comparison that writes its cells. *Clean* is a trial
after which the same call ends with the draws of an undisturbed run, or names what is damaged in one line.
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from unittest import mock

import tables

DRAW = """
import sys
from posterior_inpainting.inference import ChEES, infer
from posterior_inpainting.models import LinearGaussian, Observation, datasets, observations
images = datasets.load("digits", split="train")
model = LinearGaussian.fit(images, latent=5)
seen = Observation(images[3], observations.half((1, 8, 8), hide="bottom"))
print("ready", flush=True)
try:
    idata = infer(model, seen, ChEES(warmup=100), draws=400, chains=4, progress=False, store=sys.argv[1])
except ValueError as error:
    sys.exit(f"refused: {error}")
print(float(idata.posterior["z"].sum()), float(idata.posterior_predictive["image"].sum()))
"""
COMPARE = """
import sys
from posterior_inpainting.inference import Approach, Variational, compare
from posterior_inpainting.models import LatentCode, datasets, observations, pretrained
model = LatentCode(pretrained.load("digits-vae-2d"))
masks = {"half": observations.half((1, 8, 8), hide="bottom")}
some = {"amortised": Approach(model, Variational(), draws=100, chains=2)}
print("ready", flush=True)
found = compare(some, datasets.load("digits")[:6], masks, store=sys.argv[1], progress=False)
print(float(found["CRPS"].sum()), int(found["draws"].astype(int).sum()))
"""


class Trial:
    """One program and what it says where nothing disturbs it."""

    def __init__(self, program: str, folder: Path):
        self.program, self.folder = program, folder
        self.whole = self.run(folder / "whole")

    def start(self, store: Path) -> subprocess.Popen[str]:
        """Start it in a process of its own, and wait until it is about to begin."""
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", self.program, str(store)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
        return process

    def run(self, store: Path) -> str:
        """Run it to its end, and return its last words."""
        return words(self.start(store))

    def here(self, store: Path) -> str:
        """Run it in this process, which is faster, and return its last words."""
        said = io.StringIO()
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(io.StringIO()),
            mock.patch.object(sys, "argv", ["trial", str(store)]),
            warnings.catch_warnings(action="ignore"),
        ):
            try:
                exec(self.program, {})
            except SystemExit as refusal:
                return str(refusal)
        return said.getvalue().strip().splitlines()[-1]

    def verdict(self, found: str) -> str:
        """Say whether its last words are the undisturbed ones, or a refusal, or something else."""
        if found == self.whole:
            return "same"
        return "named" if found.startswith("refused: ") and "damaged" in found else f"OTHER: {found[:80]}"


def words(process: subprocess.Popen[str]) -> str:
    """Return what a process says in the end: its result, or the last line of its error."""
    out, error = process.communicate(timeout=120)
    return (out or error).strip().splitlines()[-1] if out or error else f"ended by {process.returncode}"


def kills(trial: Trial, count: int, chance: random.Random) -> Counter[str]:
    """Kill it at random moments, a fifth of them in its first 50 milliseconds, then let it end."""
    found: Counter[str] = Counter()
    for number in range(count):
        store = trial.folder / f"kill-{number}"
        process = trial.start(store)
        time.sleep(chance.uniform(0, 0.05) if number % 5 == 0 else chance.uniform(0.05, 2.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        found[trial.verdict(trial.run(store))] += 1
        shutil.rmtree(store, ignore_errors=True)
    return found


def races(trial: Trial, count: int) -> Counter[str]:
    """Start two at once on one store: the one that has it ends, the other is told, and a third finds it whole."""
    found: Counter[str] = Counter()
    for number in range(count):
        store = trial.folder / f"race-{number}"
        said = [words(process) for process in (trial.start(store), trial.start(store))]
        fair = all(one == trial.whole or "in use by another process" in one for one in said)
        found["same" if fair and trial.run(store) == trial.whole else f"OTHER: {said}"] += 1
        shutil.rmtree(store, ignore_errors=True)
    return found


def flips(trial: Trial, count: int, chance: random.Random) -> Counter[str]:
    """Flip one bit anywhere in what an undisturbed run left, then call it again."""
    found: Counter[str] = Counter()
    files = sorted(path for path in (trial.folder / "whole").rglob("*") if path.is_file())
    for number in range(count):
        store = trial.folder / f"flip-{number}"
        shutil.copytree(trial.folder / "whole", store)
        file = store / chance.choice(files).relative_to(trial.folder / "whole")
        content = bytearray(file.read_bytes())
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        file.write_bytes(content)
        found[trial.verdict(trial.here(store))] += 1
        shutil.rmtree(store)
    return found


def main() -> None:
    """Make all trials, and write the page."""
    options = tables.parsed(tables.arguments(__file__, __doc__))
    share = 0.05 if options.quick else 1.0
    chance = random.Random(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, program in (("store", DRAW), ("cells", COMPARE)):
            trial = Trial(program, Path(folder) / name)
            for what, count, found in (
                ("kills", int(50 * share) or 1, lambda n, t=trial: kills(t, n, chance)),
                ("races", int(10 * share) or 1, lambda n, t=trial: races(t, n)),
                ("flipped bits", int(250 * share) or 1, lambda n, t=trial: flips(t, n, chance)),
            ):
                seen = found(count)
                clean = seen["same"] + seen["named"]
                other = "; ".join(word for word in seen if word not in ("same", "named"))
                rows.append({"of": name, "what": what, "tried": count, "clean": clean, "otherwise": other})
                print(rows[-1], dict(seen), flush=True)
    options.out.write_text(
        f"# Trials of damage\n\n    {tables.command(options)}\n\n{tables.measured_on()}\n\n{tables.table_of(rows)}\n"
    )


if __name__ == "__main__":
    main()
