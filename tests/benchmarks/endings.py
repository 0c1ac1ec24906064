"""What comes back of a run that is ended early: Ctrl-C, a budget of gradients, and kill -9 with a store.

    OMP_NUM_THREADS=1 python tests/benchmarks/endings.py [--quick] [--only ChEES NUTS]

Ctrl-C and kill -9 are real signals to real processes, which are forked so that they need not start Python anew. A
signal is sent as soon as a run has made a given share of its steps, and reaches it wherever it then is.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tables
from cases import DIGIT, HALF, mask_named, tiny_models

from posterior_inpainting.inference import (
    HMC,
    MALA,
    MAP,
    NUTS,
    ULA,
    Alternating,
    ChEES,
    Nested,
    ParallelTempering,
    TemperedSMC,
    TwoStage,
    Variational,
    infer,
)
from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.density.budget import BudgetSpentError, gradient_budget
from posterior_inpainting.inference.methods import loop
from posterior_inpainting.models import Observation, datasets

FORK = multiprocessing.get_context("fork")
INTERRUPTED_AT = 0.65  # of the steps
BUDGET = 0.6  # of the gradients
KILLED_AT = (0.25, 0.55, 0.85)  # of the steps


@dataclass(frozen=True)
class Case:
    """A method, the model of ``tiny_models`` that it draws from, draws a chain and chains."""

    method: Method
    model: str = "code"
    draws: int = 200
    chains: int = 4


CASES = {
    "ChEES": Case(ChEES(warmup=60)),
    "MALA": Case(MALA(warmup=60, thin=5)),
    "ULA": Case(ULA(warmup=60, thin=5)),
    "ParallelTempering": Case(ParallelTempering(temperatures=4, warmup=60)),
    "NUTS": Case(NUTS(warmup=60), draws=160, chains=2),
    "HMC": Case(HMC(warmup=60, trajectory_length=0.5), draws=600, chains=2),
    "TemperedSMC": Case(TemperedSMC(), draws=256),
    "Alternating": Case(Alternating(warmup=60, code=("z",)), "units"),
    "TwoStage": Case(TwoStage(ChEES(warmup=40), warmup=60), "units"),
    "Nested": Case(Nested(ChEES(warmup=40)), "networks"),
    "MAP": Case(MAP(restarts=8, steps=400)),
    "Variational, a normal": Case(Variational(guide="normal", steps=600)),
    "Variational, refined": Case(Variational(steps=600)),
}


def count_steps(counter: Any) -> None:
    """Let every step of the one loop add one to a number that other processes see."""
    take = loop._Recorder.take

    def counted(self, row):
        counter.value += 1
        take(self, row)

    loop._Recorder.take = counted  # type: ignore[method-assign]


class Runs:
    """Runs of one case: here, or in processes that get a signal."""

    def __init__(self, case: Case, models: dict, counter: Any):
        self.case, self.model, self.counter = case, models[case.model], counter
        image = datasets.load("digits")[5]
        self.seen = Observation(image, mask_named(HALF, DIGIT))

    def here(self, store: Path | None = None) -> Any:
        """Run in this process."""
        self.counter.value = 0
        options = {"draws": self.case.draws, "chains": self.case.chains, "progress": False}
        return infer(self.model, self.seen, self.case.method, store=store, **options)

    def signalled(self, number: int, after: int, run: Callable[[], dict]) -> tuple[dict, int]:
        """Run in a process that gets a signal after so many steps; return what it says, and the steps it made."""
        receiver, sender = FORK.Pipe(duplex=False)
        self.counter.value = 0
        child = FORK.Process(target=lambda: sender.send(run()))
        child.start()
        sender.close()
        while self.counter.value < after and child.is_alive():
            time.sleep(0.0005)
        os.kill(child.pid, number)
        try:
            answer = receiver.recv()
        except EOFError:
            answer = {}
        child.join()
        return answer, self.counter.value


def told(run: Callable[[], Any]) -> dict[str, Any]:
    """Run, and say what came back in words and numbers that go through a pipe."""
    try:
        idata = run()
    except (KeyboardInterrupt, BudgetSpentError) as error:
        return {"kept": 0, "label": type(error).__name__, "values": {}, "gradients": None}
    label = next((word for word in loop.ENDINGS if word in idata.attrs), "none")
    sizes = idata.posterior.sizes
    # What is decoded is decoded in batches, whose size may change a last bit.
    values = {name: idata.posterior[name].to_numpy() for name in idata.posterior if name != "completion"}
    kept = sizes["chain"] if "restarts" in idata.attrs["draws_are"] else sizes["draw"]
    gradients = idata.attrs["gradient_evaluations"]
    return {"kept": kept, "label": label, "values": values, "gradients": gradients}


def digest(idata: Any) -> str:
    """Return a hash of all draws, of latents and of images."""
    found = hashlib.sha256()
    for group in (idata.posterior, idata.posterior_predictive):
        for name in sorted(group):
            found.update(group[name].to_numpy().tobytes())
    return found.hexdigest()


def is_beginning(partial: dict[str, Any], whole: Any) -> str:
    """Whether what was kept of a chain are the first draws of the whole run."""
    if not partial["kept"] or whole.attrs["draws_are"] != "markov":
        return ""
    pairs = (
        (part, whole.posterior[name].to_numpy()[:, : partial["kept"]])
        for name, part in partial["values"].items()
    )
    return ", the first ones" if all((a == b).all() for a, b in pairs) else ", **not the first ones**"


def described(partial: dict[str, Any], whole: Any) -> str:
    """Say what came back of an ended run."""
    if not partial["kept"]:
        return f"nothing: `{partial['label']}`"
    of = "" if whole.attrs["draws_are"] == "restarts" else f" of {whole.posterior.sizes['draw']}"
    unit = "optima" if not of else "draws"
    return f"{partial['kept']}{of} {unit}{is_beginning(partial, whole)}; `{partial['label']}`"


def ended(name: str, runs: Runs) -> list[str]:
    """Return one line of the table."""
    whole = runs.here()
    steps, gradients = runs.counter.value, whole.attrs["gradient_evaluations"]
    interrupted, _ = runs.signalled(signal.SIGINT, round(INTERRUPTED_AT * steps), lambda: told(runs.here))
    with gradient_budget(round(BUDGET * gradients)):
        limited = told(runs.here)
    spent = f"; {limited['gradients'] / gradients:.0%} of the gradients" if limited["gradients"] else ""
    expected, same, anew = digest(whole), [], []
    for share in KILLED_AT:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "run.zarr"
            answer, made = runs.signalled(
                signal.SIGKILL, round(share * steps), lambda store=store: told(lambda: runs.here(store))
            )
            if answer:
                raise RuntimeError(f"{name} had ended before it was killed")
            resumed = runs.here(store)
            same.append(digest(resumed) == expected)
            anew.append(made + runs.counter.value - steps)
    return [
        name,
        f"{steps:,} / {gradients:,}",
        described(interrupted, whole),
        described(limited, whole) + spent,
        "yes" if all(same) else f"**no** ({same})",
        " / ".join(f"{100 * max(count, 0) / steps:.0f} %" for count in anew),
    ]


NOTES = f"""
*Ctrl-C* (SIGINT) after {INTERRUPTED_AT:.0%} of the steps, *budget* of {BUDGET:.0%} of the whole run's gradients,
warm-up among them. Draws are a chain's; "the first ones": latents are bit for bit those with which the whole run
begins. The label is the attribute that the result carries (an optimiser plans its steps within the budget and is
labelled too); where nothing came back, the error. *Same draws*: run with a store, killed (SIGKILL) after
{" / ".join(f"{share:.0%}" for share in KILLED_AT)} of the steps and called again, latents and images hash to those of
an unbroken run without a store. *Done anew*: steps that both processes made together, less those of an unbroken run.
"""


def main() -> None:
    """Run every case, and write the table."""
    # A shell lets what it runs in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, help="these methods")
    options = tables.parsed(parser)
    counter = FORK.Value("q", 0, lock=False)  # a process that is killed would take the lock with it
    models = tiny_models()
    count_steps(counter)
    start, rows = time.process_time(), []
    names = options.only or (["ChEES", "MAP"] if options.quick else CASES)
    for name in names:
        rows.append(ended(name, Runs(CASES[name], models, counter)))
        print(" | ".join(rows[-1]), f"({time.process_time() - start:.0f} s)", flush=True)
    head = ["method", "steps / gradients", "Ctrl-C", "budget", "killed: same draws", "done anew"]
    text = f"# Runs that are ended early\n\nBy `{tables.command(options)}`. {tables.measured_on()}\n{NOTES}\n"
    options.out.write_text(text + tables.markdown(head, rows) + "\n")


if __name__ == "__main__":
    main()
