"""The methods by name: every one that the package has, with what it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from posterior_inpainting.inference.contract import Method
from posterior_inpainting.inference.methods.alternating import Alternating
from posterior_inpainting.inference.methods.auto import Auto
from posterior_inpainting.inference.methods.chees import ChEES
from posterior_inpainting.inference.methods.conditional_diffusion import ConditionalDiffusion
from posterior_inpainting.inference.methods.diffpir import DiffPIR
from posterior_inpainting.inference.methods.dps import DPS
from posterior_inpainting.inference.methods.exact import Exact
from posterior_inpainting.inference.methods.gibbs import Gibbs
from posterior_inpainting.inference.methods.global_local import GlobalLocal
from posterior_inpainting.inference.methods.hmc import HMC, NUTS
from posterior_inpainting.inference.methods.langevin import MALA, ULA
from posterior_inpainting.inference.methods.nested import Nested
from posterior_inpainting.inference.methods.noise_matched_gibbs import NoiseMatchedGibbs
from posterior_inpainting.inference.methods.noise_matched_smc import NoiseMatchedSMC
from posterior_inpainting.inference.methods.noise_matched_tempering import NoiseMatchedTempering
from posterior_inpainting.inference.methods.optimum import MAP
from posterior_inpainting.inference.methods.particle_gibbs import ParticleGibbs
from posterior_inpainting.inference.methods.pigdm import PiGDM
from posterior_inpainting.inference.methods.repaint import RePaint
from posterior_inpainting.inference.methods.smc import TemperedSMC
from posterior_inpainting.inference.methods.tempering import ParallelTempering
from posterior_inpainting.inference.methods.twisted_smc import TwistedSMC
from posterior_inpainting.inference.methods.two_stage import TwoStage
from posterior_inpainting.inference.methods.variational import Variational

__all__ = ["METHODS", "MethodEntry", "method"]


@dataclass(frozen=True)
class MethodEntry:
    """One method with its settings.

    Parameters
    ----------
    name
        What the command line calls it.
    make
        Makes it.
    what
        What it does and is for, in one line.
    source
        Authors and year of the paper.
    draws, chains
        Where the caller names this method in place of a model's own, and no numbers.
    """

    name: str
    make: Callable[[], Method]
    what: str
    source: str
    draws: int = 200
    chains: int = 16


_ENTRIES = (
    MethodEntry(
        "auto",
        Auto,
        "chooses by the model, and draws until the draws can be trusted: the default of infer()",
        "",
        draws=2000,
    ),
    MethodEntry(
        "global-local",
        GlobalLocal,
        "such chains with jumps by a mixture fitted to where chains were: several modes",
        "Gabrié et al. 2022, Samsonov et al. 2022",
        draws=2000,
    ),
    MethodEntry(
        "chees",
        ChEES,
        "many Hamiltonian chains at once, lengths learnt",
        "Hoffman, Radul & Sountsov 2021",
    ),
    MethodEntry(
        "tempered-chees",
        partial(ChEES, init="tempered"),
        "the same from tempered starts, so that each mode gets its share of chains",
        "Hoffman et al. 2021, Neal 2001",
    ),
    MethodEntry(
        "tempering",
        ParallelTempering,
        "replicas at several temperatures: several modes",
        "Geyer 1991",
        chains=4,
    ),
    MethodEntry(
        "smc",
        TemperedSMC,
        "particles from prior to posterior: several modes, and the evidence with its error",
        "Del Moral et al. 2006",
        draws=500,
        chains=4,
    ),
    MethodEntry(
        "gibbs",
        Gibbs,
        "each part of the latents drawn exactly given the others: fields of experts",
        "Geman & Geman 1984",
        draws=50,
        chains=8,
    ),
    MethodEntry(
        "conditional-diffusion",
        ConditionalDiffusion,
        "the posterior's own reverse diffusion: priors that denoise pixel by pixel",
        "after Saharia et al. 2022, Chen et al. 2024",
        draws=400,
        chains=1,
    ),
    MethodEntry(
        "noise-matched-gibbs",
        NoiseMatchedGibbs,
        "noise on hidden pixels and denoising, by turns: priors that denoise",
        "after Xu & Chi 2024",
        draws=50,
    ),
    MethodEntry(
        "noise-matched-tempering",
        NoiseMatchedTempering,
        "the same at several noise levels, with swaps: several modes",
        "after Xu & Chi 2024, Geyer 1991",
        draws=100,
        chains=4,
    ),
    MethodEntry(
        "noise-matched-smc",
        NoiseMatchedSMC,
        "images from prior to posterior as the noise falls, and the evidence with its error",
        "after Xu & Chi 2024, Del Moral et al. 2006",
        draws=100,
        chains=4,
    ),
    MethodEntry(
        "particle-gibbs",
        ParticleGibbs,
        "latents in an order by particles: pixel by pixel, or a reverse chain; exact, the referee of the others",
        "Andrieu et al. 2010, Wu et al. 2023, Corenflos et al. 2024",
        draws=50,
        chains=8,
    ),
    MethodEntry(
        "twisted-smc",
        TwistedSMC,
        "particles along the order of the latents, and the evidence with its error: pixel by pixel, state spaces",
        "Gordon et al. 1993, Naesseth et al. 2019",
        draws=100,
        chains=8,
    ),
    MethodEntry(
        "dps", DPS, "diffusion posterior sampling: approximate", "Chung et al. 2023", draws=400, chains=1
    ),
    MethodEntry(
        "pigdm", PiGDM, "pseudoinverse guidance: approximate", "Song et al. 2023", draws=400, chains=1
    ),
    MethodEntry(
        "diffpir", DiffPIR, "plug-and-play restoration: approximate", "Zhu et al. 2023", draws=400, chains=1
    ),
    MethodEntry(
        "repaint",
        RePaint,
        "seen pixels overwritten step by step: approximate",
        "Lugmayr et al. 2022",
        draws=400,
        chains=1,
    ),
    MethodEntry("mala", MALA, "Langevin steps with a Metropolis test", "Roberts & Tweedie 1996"),
    MethodEntry(
        "langevin",
        partial(MALA, warmup=100, thin=10, metric="identity", init="optimum"),
        "the same from optima, thinned: for weights of networks",
        "Roberts & Tweedie 1996",
        draws=100,
        chains=4,
    ),
    MethodEntry("ula", ULA, "Langevin steps without a test: biased, and labelled so", "Welling & Teh 2011"),
    MethodEntry("nuts", NUTS, "Pyro's NUTS, one chain at a time", "Hoffman & Gelman 2014", chains=4),
    MethodEntry("hmc", HMC, "Pyro's HMC, one chain at a time", "Neal 2011", chains=4),
    MethodEntry(
        "two-stage",
        TwoStage,
        "code and weights at once, from chains over the code: for code-and-weights",
        "Hoffman et al. 2021",
        draws=50,
    ),
    MethodEntry(
        "alternating",
        Alternating,
        "the code, then white weights, by turns: for code-and-weights",
        "Cotter, Roberts, Stuart & White 2013",
        draws=50,
    ),
    MethodEntry(
        "nested",
        Nested,
        "chains for each network, weighed by evidence: for weight-draws",
        "Meng & Wong 1996",
        draws=50,
    ),
    MethodEntry(
        "amortised",
        Variational,
        "draws of the model's own guide, with importance weights",
        "Kingma & Welling 2014",
        draws=400,
        chains=1,
    ),
    MethodEntry(
        "normal",
        partial(Variational, guide="normal"),
        "a mean-field normal, fitted to the image",
        "Hoffman et al. 2013",
        draws=400,
        chains=1,
    ),
    MethodEntry(
        "multivariate-normal",
        partial(Variational, guide="multivariate_normal"),
        "a normal with all correlations, fitted to the image",
        "Kucukelbir et al. 2017",
        draws=400,
        chains=1,
    ),
    MethodEntry(
        "iaf",
        partial(Variational, guide="iaf"),
        "an inverse autoregressive flow, fitted to the image",
        "Kingma et al. 2016",
        draws=400,
        chains=1,
    ),
    MethodEntry("map", MAP, "optima from several starts: no draws", "Yeh et al. 2017", draws=1, chains=1),
    MethodEntry(
        "exact", Exact, "independent draws, of models that know their posterior", "", draws=400, chains=1
    ),
)

#: Every method by name.
METHODS: dict[str, MethodEntry] = {one.name: one for one in _ENTRIES}


def method(name: str) -> Method:
    """Make the method of a name.

    Raises ``ValueError`` for an unknown name.

    >>> method("nuts").target_acceptance
    0.8
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name].make()
