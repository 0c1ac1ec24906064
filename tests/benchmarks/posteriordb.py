"""What `sample` without a method gives for posteriors of posteriordb, beside Pyro, NumPyro and BlackJAX.

    python tests/benchmarks/posteriordb.py [--quick] [--only NAME,NAME] [--contenders ours,"NumPyro NUTS"]

Every contender draws until its draws can be trusted, by the same rule, or until its CPU seconds are spent, warm-up
included; compilation is counted apart, at most as long. Draws are compared with the moments of posteriordb's reference
draws. What is done is kept in `build/bench/posteriordb.json`: a run that was ended goes on.
"""

# isort: off
import sampling_threads  # noqa: F401, before what it is about

# isort: on
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import tables
from posteriordb_cases import POSTERIORS, Posterior, named
from posteriordb_contenders import RIVALS, Rival
from posteriordb_language import Language
from timing import Stopwatch

from posterior_inpainting.inference import Trusted, diagnostics, sample
from posterior_inpainting.inference.results.chain_statistics import ess

#: CPU seconds that a contender has for a posterior; draws a chain after which a rival gives up all the same.
LIMIT, MOST = 60.0, 20_000
#: By how much more draws there are at each look of a rival's.
MORE = 4 / 3
OURS = "ours"
#: Errors that a posterior may have and be right: of means in standard deviations, and of these relatively.
MEAN, SD = 0.05, 0.05


def ours(posterior: Posterior, seed: int, limit: float) -> dict[str, Any]:
    """Draw by default, within the limit, and compare."""
    lib = Language.pyro()
    model, data = partial(posterior.model, lib), posterior.data(lib)
    with warnings.catch_warnings(), Stopwatch() as watch, interrupted_after(limit):
        warnings.simplefilter("ignore")
        found = sample(model, None, data, seed=seed, progress=False)
    draws = {str(name): one.to_numpy() for name, one in found.posterior.data_vars.items()}
    verdict = diagnostics.verdict(found)
    record = {"trusted": verdict.may_be_used, "missing": found.attrs["until_missing"], "seconds": watch.cpu}
    record |= {"compilation": 0.0, "gradients": int(found.attrs["gradient_evaluations"])}
    return record | compared(posterior, draws)


def rival(posterior: Posterior, seed: int, draw: Rival, limit: float) -> dict[str, Any]:
    """Let a rival draw until its draws can be trusted, and compare."""
    goal = Trusted()
    seconds, compilation, missing, look = 0.0, 0.0, "draws: the warm-up took longer", 0.0
    latents: dict[str, list[np.ndarray]] = {}
    derived: dict[str, list[np.ndarray]] = {}
    for block in draw(posterior, seed, limit):
        seconds, compilation = seconds + block.seconds, compilation + block.compile_seconds
        for kept, new in ((latents, block.latents), (derived, block.derived)):
            for name, one in new.items():
                kept.setdefault(name, []).append(one)
        drawn = sum(one.shape[1] for one in next(iter(latents.values()), []))
        over = seconds > limit or drawn >= MOST
        if latents and (drawn >= look or over):
            look = MORE * drawn
            missing = goal.missing({name: _flat(np.concatenate(one, 1)) for name, one in latents.items()})
        if over or (latents and not missing):
            break
    record = {"trusted": not missing, "missing": missing, "seconds": seconds, "compilation": compilation}
    joined = {name: np.concatenate(one, 1) for name, one in (latents | derived).items()}
    return record | (compared(posterior, joined) if joined else {})


def compared(posterior: Posterior, draws: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the largest errors of draws ``(chain, draw, *event)`` by site, and how many there are."""
    by_name, reference = named(draws), posterior.reference()
    means, sds = reference.errors(by_name)
    mean, sd = (max(errors, key=lambda name, errors=errors: abs(errors[name])) for errors in (means, sds))
    sizes = [float(ess(by_name[name])) for name in reference.mean]
    record = {"mean": abs(means[mean]), "mean of": mean, "sd": abs(sds[sd]), "sd of": sd}
    return record | {"draws": by_name[mean].size, "ess": min(sizes)}


class LimitReachedError(KeyboardInterrupt):
    """The CPU seconds are spent: a run that has draws by then returns them, as at Ctrl-C."""


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """End what runs inside as Ctrl-C would, once the process has spent CPU seconds; a budget would be of the clock."""

    def interrupt(*_: object) -> None:
        raise LimitReachedError(f"no draws in {seconds:g} CPU seconds")

    former = signal.signal(signal.SIGPROF, interrupt)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)


def _flat(draws: np.ndarray) -> np.ndarray:
    return draws.reshape(*draws.shape[:2], -1)


def measured(posterior: Posterior, contender: str, limit: float) -> dict[str, Any]:
    """Measure one contender on one posterior; what it raises is told, and is a result as well."""
    try:
        if contender == OURS:
            return ours(posterior, 0, limit)
        return rival(posterior, 0, RIVALS[contender], limit)
    except (ArithmeticError, LimitReachedError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return {"trusted": False, "missing": f"{type(error).__name__}: {error}"[:300], "seconds": np.nan}


def right(row: dict[str, Any]) -> bool:
    """Whether all means and standard deviations are as near as they should be."""
    return row.get("mean", np.inf) < MEAN and row.get("sd", np.inf) < SD


def cell(row: dict[str, Any] | None) -> str:
    """Return what the table says of a contender on a posterior: errors, seconds, and whether it trusts them."""
    if row is None:
        return ""
    if "mean" not in row:
        return f"none: {row['missing'][:40]}"
    compilation = f" + {row['compilation']:.0f}" if row["compilation"] else ""
    found = f"{row['mean']:.3f}, {100 * row['sd']:.1f} %, {row['seconds']:.1f}{compilation} s"
    return found if row["trusted"] else f"*{found}*"


def summary(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a contender's row of the first table."""
    believed = [row for row in rows if row["trusted"]]
    return {
        "contender": name,
        "posteriors": len(rows),
        "trusted": len(believed),
        "means within .05 sd, sds within 5 %": sum(map(right, rows)),
        "trusted ones: worst mean (sd)": f"{max((row['mean'] for row in believed), default=np.nan):.3f}",
        "worst sd": f"{100 * max((row['sd'] for row in believed), default=np.nan):.1f} %",
        "seconds to trust, median": float(np.median([row["seconds"] for row in believed] or [np.nan])),
        "compilation, median": float(np.median([row["compilation"] for row in believed] or [np.nan])),
        "ESS of the worst, median": f"{np.median([row['ess'] for row in believed] or [np.nan]):,.0f}",
    }


def page(rows: dict[str, dict[str, Any]], options: Any) -> str:
    """Return the page of all that there is."""
    contenders = [one for one in (OURS, *RIVALS) if any(key.startswith(f"{one} | ") for key in rows)]
    names = [one for one in POSTERIORS if any(key.endswith(f" | {one}") for key in rows)]
    of = {one: [rows[key] for name in names if (key := f"{one} | {name}") in rows] for one in contenders}
    first = tables.table_of([summary(one, found) for one, found in of.items()])
    cells = [
        [name, POSTERIORS[name].constraints, *(cell(rows.get(f"{one} | {name}")) for one in contenders)]
        for name in names
    ]
    second = tables.markdown(["posterior", "constraints", *contenders], cells)
    rivals = ("numpyro", "jax", "blackjax") if set(options.contenders.split(",")) - {OURS} else ()
    lacking = [
        f"- {key}: {row['missing']}" for key, row in rows.items() if row["missing"] and not row["trusted"]
    ]
    parts = [
        f"# posteriordb\n\n    {tables.command(options)}\n\n{NOTE}",
        tables.measured_on(*rivals),
        first,
        second,
    ]
    if lacking:
        parts += ["What draws that are not to be trusted lack:", "\n".join(lacking)]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measure the posteriors and contenders that are asked for, and write the page of all that there are."""
    parser = tables.arguments(__file__, __doc__)
    parser.add_argument("--only", default=",".join(POSTERIORS), help="posteriors, separated by commas")
    parser.add_argument("--contenders", default=",".join((OURS, *RIVALS)), help="separated by commas")
    options = tables.parsed(parser)
    store = tables.QUICK / f"posteriordb{'_quick' * options.quick}.json"
    wanted = options.only.split(",")[: 1 if options.quick else None]
    rows: dict[str, dict[str, Any]] = tables.stored_rows(store, {})
    # What is imported when it is first used is no part of a measurement.
    ours(POSTERIORS["Rate_5_data-Rate_5_model"], 0, LIMIT)
    for contender in options.contenders.split(","):
        for name in wanted:
            key = f"{contender} | {name}"
            if key not in rows:
                rows[key] = measured(POSTERIORS[name], contender, 10.0 if options.quick else LIMIT)
                tables.save_rows(store, rows)
                print(key, rows[key], flush=True)
            options.out.write_text(page(rows, options))


NOTE = """\
Posteriors of [posteriordb](https://github.com/stan-dev/posteriordb), the last one ours, with a Cholesky factor, whose
moments are by quadrature. In a cell: the largest error of a mean, in standard deviations of the reference draws, and
of a standard deviation, relative to it, over the quantities that posteriordb has; CPU seconds of one thread until
draws can be trusted, warm-up included, and after the plus those of compilation. *In italics* what is not trusted
within 60 seconds, or within 20,000 draws a chain of a rival. Trusted, by one rule for all: R-hat below 1.01,
effective sample sizes in bulk and tails above 400 and standard deviations known to 7 %, of every latent. Reference
draws themselves are off by .01 standard deviations and .7 %. Chains: 16 of ours, of NumPyro's and of BlackJAX's,
which warm up for 500 iterations, and 4 of Pyro's, which warm up for 300. Ours look at their draws within their
seconds; rivals are looked at every 50 draws and more, which is not counted. All in double precision, as Stan, with
one seed.

Rivals start where their libraries do, uniformly in (-2, 2) of unconstrained space, as Stan; ours half at draws of the
prior and half at a tempered pilot. Half of the uniform starts of `arma-arma11` lie where errors grow like the 200th
power of `theta`."""

if __name__ == "__main__":
    main()
