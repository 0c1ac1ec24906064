"""Rivals of the posteriordb benchmark, each a generator of blocks of draws, so that one can look in between.

The first block has no draws and the seconds of the warm-up. Seconds are CPU seconds of one thread, those of compilation
apart. Rivals see the posterior as the `Language` of their library writes it, in double precision, and start where their
library does: uniformly in (-2, 2) of unconstrained space, as Stan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from posteriordb_cases import Posterior
from posteriordb_language import Language

__all__ = ["RIVALS", "Block", "Rival"]

#: Chains and warm-up of vectorised rivals and of those that go chain by chain, and draws of a block.
MANY, FEW, BLOCK = (16, 500), (4, 300), 50
#: Draws after which the sequence of BlackJAX's trajectory lengths begins anew: more than anybody makes.
_MOST = 2**20


@dataclass(frozen=True)
class Block:
    """Draws ``(chain, draw, *event)`` of latent and of derived sites, and what they cost."""

    latents: dict[str, np.ndarray]
    derived: dict[str, np.ndarray]
    seconds: float
    compile_seconds: float = 0.0


#: From a posterior, a seed and the CPU seconds that a warm-up may take, to blocks: none with draws if it takes more.
Rival = Callable[[Posterior, int, float], Iterator[Block]]


def pyro_nuts(posterior: Posterior, seed: int, limit: float) -> Iterator[Block]:
    """Draw by Pyro's NUTS with its defaults, chain after chain, as ``MCMC`` does it in one process."""
    import pyro
    import torch
    from pyro.infer import NUTS

    lib = Language.pyro()
    pyro.set_rng_seed(seed)
    data, (chains, warmup) = posterior.data(lib), FEW
    begin = time.process_time()
    kernels, positions = [], []
    for _ in range(chains):
        kernel = NUTS(partial(posterior.model, lib))
        kernel.setup(warmup, data)
        position = kernel.initial_params
        for _ in range(warmup):
            position = kernel.sample(position)
            if time.process_time() - begin > limit:
                yield Block({}, {}, time.process_time() - begin)
                return
        kernels.append(kernel)
        positions.append(position)
    yield Block({}, {}, time.process_time() - begin)
    while True:
        begin = time.process_time()
        drawn = []
        for chain, kernel in enumerate(kernels):
            for _ in range(BLOCK):
                positions[chain] = kernel.sample(positions[chain])
                drawn.append(positions[chain])
        latents, derived = _constrained(kernels[0].transforms, partial(posterior.model, lib), data, drawn)
        shaped = [
            {name: torch.stack(v).reshape(chains, BLOCK, *v[0].shape).numpy() for name, v in group.items()}
            for group in (latents, derived)
        ]
        yield Block(*shaped, time.process_time() - begin)


def _constrained(transforms: dict, model: Callable, data: dict, drawn: list[dict]) -> tuple[dict, dict]:
    """Run Pyro's model at positions; return its latent and its derived sites, a list of values by name."""
    import torch
    from pyro import poutine

    latents: dict[str, list] = {}
    derived: dict[str, list] = {}
    for position in drawn:
        with torch.no_grad():
            free = {
                name: transforms[name].inv(z) if name in transforms else z for name, z in position.items()
            }
            nodes = poutine.trace(poutine.condition(model, free)).get_trace(data).nodes
        for name, node in nodes.items():
            if name in free:
                latents.setdefault(name, []).append(node["value"])
            elif node["type"] == "sample" and node["infer"].get("_deterministic"):
                derived.setdefault(name, []).append(node["value"])
    return latents, derived


def numpyro_nuts(posterior: Posterior, seed: int, limit: float) -> Iterator[Block]:
    """Draw by NumPyro's NUTS, all chains in one batch, each with its own adaptation."""
    import jax
    from numpyro.infer import NUTS

    lib = Language.numpyro()
    data, (chains, warmup) = posterior.data(lib), MANY
    model = partial(posterior.model, lib)
    begin = time.process_time()
    kernel = NUTS(model)
    state = kernel.init(jax.random.split(jax.random.PRNGKey(seed), chains), warmup, None, (data,), {})
    made = time.process_time() - begin

    def advance(state):
        def one(now, _):
            now = kernel.sample(now, (data,), {})
            return now, now.z

        return jax.lax.scan(one, state, None, BLOCK)

    def warm() -> Iterator[Any]:
        found = state
        for _ in range(warmup // BLOCK):
            (found, _), seconds = _timed(step, found)
            yield found, seconds

    step, compile_seconds = _compiled(advance, state)
    constrain = jax.vmap(jax.vmap(kernel.postprocess_fn((data,), {})))
    yield from _blocks(warm, step, constrain, limit, made + compile_seconds)


def blackjax_chees(posterior: Posterior, seed: int, limit: float) -> Iterator[Block]:
    """Draw by BlackJAX over NumPyro's potential: ``chees_adaptation`` with its scales, then ``dynamic_hmc``."""
    import blackjax
    import jax
    import optax
    from numpyro.infer.util import initialize_model

    lib = Language.numpyro()
    data, (chains, warmup) = posterior.data(lib), MANY
    begin = time.process_time()
    first, second, third = jax.random.split(jax.random.PRNGKey(seed), 3)
    found = initialize_model(
        jax.random.split(first, chains), partial(posterior.model, lib), model_args=(data,)
    )
    made = time.process_time() - begin

    def log_density(z):
        return -found.potential_fn(z)

    # Its scales are off by default; without them posteriors of unequal widths take forever.
    adaptation = blackjax.chees_adaptation(log_density, chains, mass_matrix_estimation="diagonal")

    def adapt(starts):
        run = partial(adaptation.run, max_sampling_steps=_MOST)
        (states, parameters), _ = run(second, starts, 0.1, optax.adam(0.5), warmup)
        functions.update({name: one for name, one in parameters.items() if name.endswith("_fn")})
        numbers = {name: one for name, one in parameters.items() if not name.endswith("_fn")}
        return states, numbers, third

    def advance(carry):
        states, numbers, key = carry
        key, now = jax.random.split(key)
        kernel = jax.vmap(blackjax.dynamic_hmc(log_density, **numbers, **functions).step)

        def one(states, key):
            states, _ = kernel(jax.random.split(key, chains), states)
            return states, states.position

        states, drawn = jax.lax.scan(one, states, jax.random.split(now, BLOCK))
        return (states, numbers, key), drawn

    functions: dict[str, Callable] = {}
    adapted, compile_seconds = _compiled(adapt, found.param_info.z)
    carry, seconds = _timed(adapted, found.param_info.z)
    step, more = _compiled(advance, carry)
    constrain = jax.vmap(jax.vmap(found.postprocess_fn))
    yield from _blocks(
        lambda: iter([(carry, seconds)]), step, constrain, limit, made + compile_seconds + more
    )


def _blocks(
    warm: Callable, step: Callable, constrain: Callable, limit: float, compiled: float
) -> Iterator[Block]:
    """Warm up, one piece after another, and draw block after block."""
    total, carry = 0.0, None
    for begun, seconds in warm():
        total, carry = total + seconds, begun
        if total > limit:
            break
    yield Block({}, {}, total, compiled)
    while True:
        (carry, drawn), seconds = _timed(step, carry)
        swapped = {name: one.swapaxes(0, 1) for name, one in drawn.items()}
        found = {name: np.asarray(one) for name, one in constrain(swapped).items()}
        derived = {name: one for name, one in found.items() if name not in drawn}
        yield Block({name: found[name] for name in drawn}, derived, seconds)


def _compiled(function: Callable, argument: Any) -> tuple[Callable, float]:
    """Compile ahead of time; return the function and the seconds."""
    import jax

    begin = time.process_time()
    return jax.jit(function).lower(argument).compile(), time.process_time() - begin


def _timed(function: Callable, argument: Any) -> tuple[Any, float]:
    """Run what is compiled; return the result and the seconds."""
    import jax

    begin = time.process_time()
    result = jax.block_until_ready(function(argument))
    return result, time.process_time() - begin


RIVALS: dict[str, Rival] = {
    "Pyro NUTS": pyro_nuts,
    "NumPyro NUTS": numpyro_nuts,
    "BlackJAX ChEES": blackjax_chees,
}
