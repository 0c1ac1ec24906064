"""Runs that are killed, raced and damaged, many times over: writes `trials_of_damage.md`.

    OMP_NUM_THREADS=1 python tests/benchmarks/trials_of_damage.py [--quick]

Each trial is a process of its own, forked from one that has imported everything, that draws into a store, or a
comparison that writes its cells. *Clean* is a trial
after which the same call ends with the draws of an undisturbed run, or names what is damaged in one line.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

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
    idata = infer(model, seen, ChEES(warmup=50), draws=200, chains=4, progress=False, store=sys.argv[1] or None)
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
found = compare(some, datasets.load("digits")[:6], masks, store=sys.argv[1] or None, progress=False)
print(float(found["CRPS"].sum()), int(found["draws"].astype(int).sum()))
"""


class Child:
    """A process that runs a program, forked from this one, which has imported all that takes time to import.

    This process itself opens no store: the threads that read one would not live on in a child.
    """

    def __init__(self, program: str, store: Path):
        reading, writing = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.close(reading)
            os._exit(_ran(program, store))
        os.close(writing)
        self.said = os.fdopen(reading)
        line = self.said.readline()
        assert line == "ready\n", line + self.said.read()

    def kill(self) -> None:
        """End it at once."""
        os.kill(self.pid, signal.SIGKILL)
        self.words()

    def words(self) -> str:
        """Wait for its end, and return what it says in the end: its result, or the last line of its error."""
        lines = self.said.read().strip().splitlines()
        self.said.close()
        os.waitpid(self.pid, 0)
        return lines[-1] if lines else "nothing"


def _ran(program: str, store: Path) -> int:
    """Run a program as the whole of this process, and return its exit code; what it says goes to its output."""
    sys.argv = ["trial", str(store)]
    warnings.simplefilter("ignore")
    code = 0
    try:
        exec(program, {})
    except SystemExit as refusal:
        print(refusal)
        code = 1
    except BaseException:
        traceback.print_exc()
        code = 2
    sys.stdout.flush()
    sys.stderr.flush()
    return code


class Trial:
    """One program and what it says where nothing disturbs it."""

    def __init__(self, program: str, folder: Path):
        self.program, self.folder = program, folder
        sys.argv = ["trial", ""]
        with contextlib.redirect_stdout(io.StringIO()):
            exec(program, {})  # without a store: so that all that it needs is imported
        self.whole = self.run(folder / "whole")

    def start(self, store: Path) -> Child:
        """Start it in a process of its own, which is about to begin."""
        return Child(self.program, store)

    def run(self, store: Path) -> str:
        """Run it to its end, and return its last words."""
        return self.start(store).words()

    def verdict(self, found: str) -> str:
        """Say whether its last words are the undisturbed ones, or a refusal, or something else."""
        if found == self.whole:
            return "same"
        return "named" if found.startswith("refused: ") and "damaged" in found else f"OTHER: {found[:80]}"


def kills(trial: Trial, count: int, chance: random.Random) -> Counter[str]:
    """Kill it at random moments, a fifth of them in its first 50 milliseconds, then let it end."""
    found: Counter[str] = Counter()
    for number in range(count):
        store = trial.folder / f"kill-{number}"
        process = trial.start(store)
        time.sleep(chance.uniform(0, 0.05) if number % 5 == 0 else chance.uniform(0.05, 1.5))
        process.kill()
        found[trial.verdict(trial.run(store))] += 1
        shutil.rmtree(store, ignore_errors=True)
    return found


def races(trial: Trial, count: int) -> Counter[str]:
    """Start two at once on one store: the one that has it ends, the other is told, and a third finds it whole."""
    found: Counter[str] = Counter()
    for number in range(count):
        store = trial.folder / f"race-{number}"
        said = [one.words() for one in (trial.start(store), trial.start(store))]
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
        found[trial.verdict(trial.run(store))] += 1
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
