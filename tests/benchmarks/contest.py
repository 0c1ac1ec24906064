"""Seconds to trust: how long each sampler takes until draws can be trusted, and whether they should have been.

    python tests/benchmarks/contest.py [--quick] [--images 0-19] [--only "ours: Auto,BlackJAX few"] [--page]

Posteriors of `fashion-mnist-vae`: test images of Fashion-MNIST behind three masks. A contender is there when in every
hidden pixel of the noiseless completion the rank-normalised split R-hat is below 1.01 and the effective sample sizes
in bulk and tails are above 400. What is done is kept in `build/bench/contest`, a file a contender and posterior: a run
that was ended goes on. `--page` only writes the page of what there is.
"""

from __future__ import annotations

# isort: off
import sampling_threads  # noqa: F401, before what it is about

# isort: on
import argparse
from pathlib import Path

import tables
from contest_measure import LIMIT, Posterior, Row, measured, ours, stored
from contest_page import WRONG, by_contender, by_mask, differences, settings_tried
from contest_settings import OURS, REFERENCE, RIVALS, TRIALS, contenders, is_tried, tried
from sampling_contenders import Case, check_densities
from trusted import GARMENT_MASKS, WIDE, code

NAMES = [*OURS, *RIVALS, REFERENCE]


def check_same_posterior() -> None:
    """Raise where the densities that contenders draw from differ."""
    case = Case(code("fashion-mnist-vae"), TRIALS[0].seen, 1, 1, 4)
    difference = check_densities(case)
    if not difference < 1e-3:
        raise AssertionError(f"the densities differ by {difference:.2g}")


def page(options: argparse.Namespace, store: Path, posteriors: list[Posterior]) -> str:
    """Return the page of the posteriors on which all contenders that have begun are done."""
    # Of a rival without a trial there is nothing to show, and to make one is not this function's work.
    begun = [name for name in NAMES if name not in RIVALS or is_tried(store, name, options.quick)]
    rows: dict[str, dict[Posterior, Row]] = {}
    for name in contenders(store, begun, options.quick):
        found = {posterior: stored(store, name, posterior) for posterior in posteriors}
        rows[name] = {posterior: row for posterior, row in found.items() if row is not None}
    references = rows.pop(REFERENCE)
    rows = {name: mine for name, mine in rows.items() if mine}
    whole = [
        posterior for posterior in posteriors if rows and all(posterior in mine for mine in rows.values())
    ]
    if not whole:
        return "# Seconds to trust\n\nNo posterior is done by all.\n"
    shared = {name: {one: mine[one] for one in whole} for name, mine in rows.items()}
    usable = {one: references[one] for one in whole if one in references}
    rhats = [row["rhat"] for row in usable.values()]
    sections = [
        f"# Seconds to trust\n\n    {tables.command(options)} --images {options.images}",
        NOTE.format(limit=LIMIT, count=len({one.number for one in whole}), posteriors=len(whole)),
        tables.measured_on("jax", "numpyro", "blackjax", "arviz"),
        "## Who is there, and how soon\n\n" + by_contender(shared, next(iter(shared))),
        "## By mask: share, and median of seconds\n\n" + by_mask(shared),
    ]
    if usable:
        agreed = sum(rhat < 1.01 for rhat in rhats)
        about = OFF.format(
            wrong=WRONG, wide=WIDE, count=len(usable), agreed=agreed, median=sorted(rhats)[len(rhats) // 2]
        )
        sections.append("## Who is wrong\n\n" + about + "\n\n" + differences(shared, usable))
    takes_part = [name for name in RIVALS if any(one.startswith(name) for one in shared)]
    trials = {name: tried(store, name, options.quick) for name in takes_part}
    sections.append("## Settings of rivals\n\n" + SETTINGS + "\n\n" + settings_tried(trials))
    return "\n\n".join(sections) + "\n"


def main() -> None:
    """Measure what is not stored, posterior by posterior, and write the page after each."""
    parser = tables.arguments(__file__, __doc__, images="0-19")
    parser.add_argument("--only", default=",".join(NAMES), help="contenders, separated by commas")
    parser.add_argument(
        "--page", action="store_true", help="measure nothing, write the page of what there is"
    )
    options = tables.parsed(parser, quick_images="0-0")
    store = tables.QUICK / f"contest{'_quick' * options.quick}"
    masks = GARMENT_MASKS[:1] if options.quick else GARMENT_MASKS
    names = ["ours: Auto", "BlackJAX few"] if options.quick else options.only.split(",")
    if unknown := set(names) - set(NAMES):
        parser.error(f"--only has {', '.join(sorted(unknown))}; expected some of {', '.join(NAMES)}")
    numbers = tables.image_numbers(options.images)
    posteriors = [Posterior(number, mask) for number in numbers for mask in masks]
    if not options.page:
        check_same_posterior()
        ours(None)(TRIALS[0])  # imports, and what else is done once, are not anybody's sampling
        measures = contenders(store, names, options.quick)
        for posterior in posteriors:
            for name, measure in measures.items():
                measured(store, name, measure, posterior)
            options.out.write_text(page(options, store, posteriors))
    options.out.write_text(page(options, store, posteriors))
    print(options.out.read_text())


NOTE = """\
{posteriors} posteriors of `fashion-mnist-vae` (32 latents): {count} test image(s) of Fashion-MNIST behind masks.
Seconds are CPU seconds of one thread, with warm-up. Of ours all of them count, looks at draws and the making of the
result included; of rivals only what their samplers take: compilation (once a mask, given beside it), decoding and our
looks at their draws, one after each fifth more of them, are free. Who is not there within {limit:.0f} s counts as
infinitely late. Ours ends when more is reached than is asked for here: the same of latents, and standard deviations
known to 7 %."""
OFF = """\
Where a contender says that it is there: the largest difference of a pixel's mean, in standard deviations, and of its
standard deviation, relative to it, from long runs of parallel tempering, over hidden pixels that vary at least {wide:g}
times as much as the widest. An effective size of 400 alone makes differences of .05 in one pixel, and of .1 to .15 in
the worst of hundreds; above {wrong} a contender is wrong. {agreed} of {count} references have an R-hat below 1.01
(median {median:.4f}); only these are used."""
SETTINGS = """\
Seconds until each setting is there on two posteriors that are not in the contest: test image 5000 without its bottom
half, and 5001 with a tenth of its pixels. All start at draws of the prior."""

if __name__ == "__main__":
    main()
