"""The contenders of `sampling.py`, each drawing from one density: p(z | seen pixels) of one decoder.

A contender takes a ``Case`` and returns a ``Result``: codes ``(chain, draw, latent)``, seconds with warm-up and
without compilation, seconds of compilation, and the gradients that its chains asked for, warm-up included.
Seconds are the process's CPU seconds: on one thread, what a clock shows on a machine that does nothing else.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pyro
import torch
from pyro.infer import MCMC, NUTS
from pyro.ops import integrator
from sampling_density import jax_data, jax_log_density

from posterior_inpainting.inference import ChEES, Plan, Problem
from posterior_inpainting.inference.density.potential import Potential
from posterior_inpainting.inference.streams import Streams
from posterior_inpainting.models import LatentCode, Observation


@dataclass(frozen=True)
class Case:
    """One posterior, and how to draw from it."""

    model: LatentCode
    observation: Observation
    warmup: int
    draws: int
    chains: int
    seed: int = 0

    def problem(self) -> Problem:
        """Return what our samplers take."""
        return Problem(self.model, (self.observation.image, self.observation.mask))

    def starts(self) -> np.ndarray:
        """Draw the vectorised contenders' starts from the prior: the same for each."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.model.prior().sample((self.chains,)).numpy()


@dataclass(frozen=True)
class Result:
    """What a contender drew, and at what cost."""

    codes: np.ndarray
    seconds: float
    compile_seconds: float
    gradients: int


def ours(case: Case, method: ChEES | None = None) -> Result:
    """Draw by this package's ``ChEES()``, with its default settings."""
    method = ChEES() if method is None else method
    start = time.process_time()
    drawn = method.run(case.problem(), Plan(case.draws, case.chains, Streams(case.seed)))
    seconds = time.process_time() - start
    return Result(drawn.latents["z"].numpy(), seconds, 0.0, drawn.attrs["gradient_evaluations"])


def pyro_nuts(case: Case, *, dense: bool = False) -> Result:
    """Draw by ``pyro.infer.MCMC(NUTS(model))``, chain after chain, as any user of Pyro would."""
    count, original = 0, integrator.potential_grad

    def counted(*args):
        nonlocal count
        count += 1
        return original(*args)

    integrator.potential_grad = counted
    pyro.set_rng_seed(case.seed)
    start = time.process_time()
    try:
        codes = []
        for _ in range(case.chains):  # what num_chains does on one core, without its warning
            mcmc = MCMC(
                NUTS(case.model, full_mass=dense),
                num_samples=case.draws,
                warmup_steps=case.warmup,
                disable_progbar=True,
            )
            mcmc.run(case.observation.image, case.observation.mask)
            codes.append(mcmc.get_samples()["z"].reshape(case.draws, -1))
    finally:
        integrator.potential_grad = original
    return Result(torch.stack(codes).numpy(), time.process_time() - start, 0.0, count)


def numpyro_nuts(case: Case, *, dense: bool = False) -> Result:
    """Draw by NumPyro's vectorised NUTS."""
    data = jax_data(case.model, case.observation)

    def run(key, starts, data):
        mcmc = numpyro.infer.MCMC(
            numpyro.infer.NUTS(potential_fn=lambda z: -jax_log_density(data, z), dense_mass=dense),
            num_warmup=case.warmup,
            num_samples=case.draws,
            num_chains=case.chains,
            chain_method="vectorized",
            progress_bar=False,
        )
        first, second = jax.random.split(key)
        mcmc.warmup(first, init_params=starts, extra_fields=("num_steps",), collect_warmup=True)
        steps = mcmc.get_extra_fields()["num_steps"].sum()
        mcmc.run(second, extra_fields=("num_steps",))
        return mcmc.get_samples(group_by_chain=True), steps + mcmc.get_extra_fields()["num_steps"].sum()

    (codes, steps), seconds, compile_seconds = _timed(run, case, data, dense)
    return Result(np.asarray(codes), seconds, compile_seconds, int(steps))


def blackjax_chees(case: Case) -> Result:
    """Draw by BlackJAX: ``chees_adaptation`` with its diagonal scales, then ``dynamic_hmc`` with what it found."""
    data = jax_data(case.model, case.observation)

    def run(key, starts, data):
        log_density = functools.partial(jax_log_density, data)
        first, second = jax.random.split(key)
        # Its scales are off by default; without them some runs end at R-hat 2.
        adaptation = blackjax.chees_adaptation(log_density, case.chains, mass_matrix_estimation="diagonal")
        (states, parameters), info = adaptation.run(first, starts, 0.1, optax.adam(0.5), case.warmup)
        steps = info.info.num_integration_steps.sum()
        kernel = blackjax.dynamic_hmc(log_density, **parameters).step

        def one(states, key):
            states, info = jax.vmap(kernel)(jax.random.split(key, case.chains), states)
            return states, (states.position, info.num_integration_steps)

        _, (codes, counts) = jax.lax.scan(one, states, jax.random.split(second, case.draws))
        return codes.swapaxes(0, 1), steps + counts.sum()

    (codes, steps), seconds, compile_seconds = _timed(run, case, data)
    return Result(np.asarray(codes), seconds, compile_seconds, int(steps))


CONTENDERS = {
    "Pyro NUTS": pyro_nuts,
    "Pyro NUTS, dense metric": functools.partial(pyro_nuts, dense=True),
    "NumPyro NUTS, vectorised": numpyro_nuts,
    "NumPyro NUTS, vectorised, dense metric": functools.partial(numpyro_nuts, dense=True),
    "BlackJAX ChEES": blackjax_chees,
    "ours, ChEES": ours,
}

_compiled: dict[tuple, Any] = {}


def timed(run: Callable, name: Hashable, *arguments: Any) -> tuple[Any, float, float]:
    """Compile ahead of time, once for each name and shape of the arguments, then run.

    Returns
    -------
    tuple
        The result, the CPU seconds of the run, and those of compilation.
    """
    key = (name, str(jax.tree.map(lambda leaf: leaf.shape, arguments)))
    start = time.process_time()
    if key not in _compiled:
        _compiled[key] = jax.jit(run).lower(*arguments).compile()
    compile_seconds = time.process_time() - start
    start = time.process_time()
    result = jax.block_until_ready(_compiled[key](*arguments))
    return result, time.process_time() - start, compile_seconds


def _timed(run: Callable, case: Case, data: dict, dense: bool = False) -> tuple[Any, float, float]:
    """Time a whole run on a case: result, seconds of the run, of compilation."""
    name = (run.__qualname__, case.warmup, case.draws, case.chains, dense)
    return timed(run, name, jax.random.key(case.seed), jnp.asarray(case.starts()), data)


def check_densities(case: Case) -> float:
    """Return the largest difference of log densities between ours, Pyro's trace and JAX."""
    z = torch.from_numpy(case.starts())[:4]
    log_densities = []
    for closed_form in (True, False):
        potential = Potential(case.problem(), closed_form=closed_form)
        log_densities.append(sum(potential(z)).numpy())
    theirs = jax.vmap(functools.partial(jax_log_density, jax_data(case.model, case.observation)))
    log_densities.append(np.asarray(theirs(jnp.asarray(z.numpy()))))
    reference = log_densities[0]
    return max(float(np.abs(other - reference).max() / np.abs(reference).max()) for other in log_densities)
