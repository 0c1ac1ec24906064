"""The contenders of `contest.py`: each draws codes block by block, so that somebody can look in between.

A rival is a generator of ``Block``s. Its first block has no draws and the seconds of the warm-up; every further one
has draws, and the seconds that they took. Rivals start at draws of the prior. Seconds are CPU seconds of one thread,
those of compilation apart.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pyro
from pyro.infer import NUTS
from pyro.infer.autoguide import init_to_sample
from sampling_contenders import Case, timed
from sampling_density import jax_data, jax_log_density

__all__ = ["Block", "Rival", "blackjax_chees", "blackjax_meads", "numpyro_nuts", "pyro_nuts"]

#: Draws after which the Halton sequence of BlackJAX's trajectory lengths begins anew: more than anybody makes.
_MOST = 2**20
#: Draws of a block of Pyro's.
_SMALL = 10


@dataclass(frozen=True)
class Block:
    """Draws ``(chain, draw, latent)``, what they cost, and what compiling cost beside it."""

    codes: np.ndarray
    seconds: float
    compile_seconds: float = 0.0


#: From a posterior, with warm-up, draws of a block and chains, to blocks without end.
Rival = Callable[[Case], Iterator[Block]]


def pyro_nuts(case: Case) -> Iterator[Block]:
    """Draw by Pyro's NUTS with its defaults, chain after chain in one process, as ``MCMC`` does it there.

    Its blocks are small, and those of the warm-up are without draws: a single iteration may take a second.
    """
    pyro.set_rng_seed(case.seed)
    chains = []
    for _ in range(case.chains):
        start = time.process_time()
        kernel = NUTS(case.model, init_strategy=init_to_sample)
        kernel.setup(case.warmup, case.observation.image, case.observation.mask)
        position = kernel.initial_params
        for _ in range(case.warmup):
            position = kernel.sample(position)
            yield Block(_no_codes(case), time.process_time() - start)
            start = time.process_time()
        chains.append((kernel, position))
    while True:
        start = time.process_time()
        codes = np.empty((case.chains, _SMALL, case.model.latent), np.float32)
        for chain, (kernel, position) in enumerate(chains):
            for draw in range(_SMALL):
                position = kernel.sample(position)
                codes[chain, draw] = position["z"].flatten().numpy()
            chains[chain] = kernel, position
        yield Block(codes, time.process_time() - start)


def numpyro_nuts(case: Case, *, dense: bool = False) -> Iterator[Block]:
    """Draw by NumPyro's NUTS, all chains in one batch, each with its own adaptation: ``chain_method="vectorized"``."""

    def begun(key, starts, data):
        kernel = numpyro.infer.NUTS(potential_fn=lambda z: -jax_log_density(data, z), dense_mass=dense)
        return kernel, kernel.init(jax.random.split(key, case.chains), case.warmup, starts)

    def warm(key, starts, data):
        kernel, state = begun(key, starts, data)
        return jax.lax.fori_loop(0, case.warmup, lambda _, now: kernel.sample(now, (), {}), state)

    def go_on(key, state, data):
        kernel, _ = begun(
            key, state.z, data
        )  # makes a kernel that knows its density; nothing of it is computed

        def one(now, _):
            now = kernel.sample(now, (), {})
            return now, now.z

        return jax.lax.scan(one, state, None, case.draws)

    return _blocks(case, warm, go_on, dense)


def blackjax_chees(case: Case, *, rate: float = 0.5) -> Iterator[Block]:
    """Draw by BlackJAX: ``chees_adaptation`` with its diagonal scales, then ``dynamic_hmc`` with what it found."""

    def adapted(key, starts, data):
        log_density = functools.partial(jax_log_density, data)
        # Its scales are off by default; without them some runs end at R-hat 2.
        adaptation = blackjax.chees_adaptation(log_density, case.chains, mass_matrix_estimation="diagonal")
        (states, parameters), _ = adaptation.run(
            key, starts, 0.1, optax.adam(rate), case.warmup, max_sampling_steps=_MOST
        )
        return states, parameters

    def is_number(name: str) -> bool:
        return not name.endswith("_fn")

    def warm(key, starts, data):
        states, parameters = adapted(key, starts, data)
        return states, {name: value for name, value in parameters.items() if is_number(name)}

    def go_on(key, carry, data):
        states, numbers = carry
        # The functions among the parameters are the same for every posterior: nothing else of this is computed.
        functions = {
            name: value
            for name, value in adapted(key, states.position, data)[1].items()
            if not is_number(name)
        }
        kernel = blackjax.dynamic_hmc(functools.partial(jax_log_density, data), **numbers, **functions).step

        def one(states, key):
            states, _ = jax.vmap(kernel)(jax.random.split(key, case.chains), states)
            return states, states.position

        states, codes = jax.lax.scan(one, states, jax.random.split(key, case.draws))
        return (states, numbers), codes

    return _blocks(case, warm, go_on, rate)


def blackjax_meads(case: Case, *, thin: int = 10) -> Iterator[Block]:
    """Draw by BlackJAX: ``meads_adaptation``, then ``ghmc``, of whose single leapfrog steps every tenth is kept."""

    def warm(key, starts, data):
        adaptation = blackjax.meads_adaptation(functools.partial(jax_log_density, data), case.chains)
        (states, parameters), _ = adaptation.run(key, starts, case.warmup)
        return states, parameters

    def go_on(key, carry, data):
        states, parameters = carry
        kernel = blackjax.ghmc(functools.partial(jax_log_density, data), **parameters).step

        def one(states, key):
            return jax.vmap(kernel)(jax.random.split(key, case.chains), states)[0], None

        def kept(states, key):
            states, _ = jax.lax.scan(one, states, jax.random.split(key, thin))
            return states, states.position

        states, codes = jax.lax.scan(kept, states, jax.random.split(key, case.draws))
        return (states, parameters), codes

    return _blocks(case, warm, go_on, thin)


def _blocks(case: Case, warm: Callable, go_on: Callable, *setting: Any) -> Iterator[Block]:
    """Warm up, then draw block after block, by two functions that are compiled once for each shape."""
    data, key = jax_data(case.model, case.observation), jax.random.key(case.seed)
    name = (warm.__qualname__, case.warmup, case.draws, case.chains, *setting)
    carry, seconds, compile_seconds = timed(warm, ("warm", *name), key, jnp.asarray(case.starts()), data)
    yield Block(_no_codes(case), seconds, compile_seconds)
    for number in count(1):
        arguments = jax.random.fold_in(key, number), carry, data
        (carry, codes), seconds, compile_seconds = timed(go_on, ("go on", *name), *arguments)
        yield Block(np.asarray(codes).swapaxes(0, 1), seconds, compile_seconds)


def _no_codes(case: Case) -> np.ndarray:
    return np.empty((case.chains, 0, case.model.latent), np.float32)
