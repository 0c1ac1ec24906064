"""R-hat and effective sample sizes are ArviZ's, for many quantities at once; the efficiency that they make."""

import time

import arviz
import numpy as np
import pytest
import torch
import xarray as xr

from posterior_inpainting.inference.results.autocorrelation import autocorrelation_time
from posterior_inpainting.inference.results.chain_statistics import (
    error_of_sd,
    ess,
    rhat,
)
from posterior_inpainting.inference.results.containers import to_arviz
from posterior_inpainting.inference.results.efficiency import efficiency

#: ArviZ goes through other sums, and draws are kept as float32.
RELATIVE = 1e-6


def chains_of(shape, memory=0.6, seed=0, dtype=float):
    """Autoregressive chains ``(chain, draw, quantity)``; quantities remember for more and less long."""
    values = np.random.default_rng(seed).normal(size=shape)
    weights = memory * np.linspace(-0.8, 1.6, shape[-1]).clip(-0.9, 0.95)
    for t in range(1, shape[1]):
        values[:, t] += weights * values[:, t - 1]
    return values.astype(dtype)


def disagreeing():
    values = chains_of((4, 200, 6))
    values[0] += np.linspace(0, 4, 6)
    values[1] *= np.linspace(1, 5, 6)
    return values


def with_outliers():
    values = chains_of((4, 100, 5))
    values[1, 7, 0], values[2, 50, 1] = np.inf, -np.inf
    return values**3


CASES = {
    "float64": chains_of((4, 1000, 20)),
    "float32": chains_of((4, 1000, 20), dtype=np.float32),
    "odd draws": chains_of((3, 251, 10)),
    "few draws": chains_of((2, 9, 30)),
    "four draws": chains_of((4, 4, 30)),
    "five draws": chains_of((4, 5, 30)),
    "many chains": chains_of((32, 30, 8)),
    "long memory": chains_of((4, 300, 10), memory=1.0),
    "chains that disagree": disagreeing(),
    "heavy tails": with_outliers(),
    "equal values": np.round(chains_of((4, 200, 8), dtype=np.float32), 1),
    "zeros of both signs": np.round(chains_of((4, 200, 8), dtype=np.float32)) * np.float32(-0.5),
    "several dims": chains_of((4, 60, 12)).reshape(4, 60, 2, 3, 2),
}


@pytest.fixture(params=CASES)
def values(request):
    return CASES[request.param]


def theirs(function, values, **options):
    names = [f"dim_{i}" for i in range(values.ndim - 2)]
    if options.get("method") == "tail":  # those of Vehtari et al. 2021; ArviZ 1 has others unless told
        options["prob"] = (0.05, 0.95)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = function(xr.Dataset({"x": (("chain", "draw", *names), values)}), **options)
    return found["x"].to_numpy()


class TestAsArviz:
    def test_rhat(self, values):
        np.testing.assert_allclose(rhat(values), theirs(arviz.rhat, values), rtol=RELATIVE)

    @pytest.mark.parametrize("kind", ["bulk", "tail", "mean"])
    def test_ess(self, values, kind):
        if kind == "mean" and not np.isfinite(values).all():
            assert np.isnan(ess(values, kind)[:2]).all()
            values = values[..., 2:]
        np.testing.assert_allclose(ess(values, kind), theirs(arviz.ess, values, method=kind), rtol=RELATIVE)

    @pytest.mark.parametrize("kind", ["bulk", "tail", "mean"])
    @pytest.mark.parametrize("draws", [100, 97])  # the quantile between the same two draws by any definition
    def test_one_chain(self, draws, kind):
        one = chains_of((1, draws, 6))
        np.testing.assert_allclose(ess(one, kind), theirs(arviz.ess, one, method=kind), rtol=RELATIVE)
        half = draws // 2
        two = np.concatenate([one[:, :half], one[:, half : 2 * half]])
        np.testing.assert_allclose(rhat(one), theirs(arviz.rhat, two), rtol=RELATIVE)

    def test_in_pieces(self, values, monkeypatch):
        whole = rhat(values), ess(values)
        monkeypatch.setattr("posterior_inpainting.inference.results.chain_statistics._CHUNK", 1000)
        np.testing.assert_array_equal(rhat(values), whole[0])
        np.testing.assert_array_equal(ess(values), whole[1])


class TestWhatDoesNotVary:
    @pytest.mark.parametrize("constant", [0.0, 0.1, -3.7])
    def test_constant(self, constant):
        values = chains_of((4, 100, 3), dtype=np.float32)
        values[..., 1] = constant
        assert np.isnan(rhat(values)).tolist() == [False, True, False]
        for kind in ("bulk", "tail", "mean"):
            assert ess(values, kind)[1] == 400
            np.testing.assert_allclose(
                ess(values, kind), theirs(arviz.ess, values, method=kind), rtol=RELATIVE
            )

    def test_nan(self):
        values = chains_of((4, 100, 3))
        values[2, 50, 0] = np.nan
        for found in (rhat(values), ess(values), ess(values, "tail"), ess(values, "mean")):
            assert np.isnan(found).tolist() == [True, False, False]

    def test_each_chain_stands_still_somewhere_else(self):
        values = np.repeat(np.arange(4.0)[:, None, None], 50, 1)
        assert rhat(values) > 1e3  # infinite, up to the rounding of a mean
        assert ess(values) < 5

    def test_three_draws_say_nothing(self):
        values = chains_of((4, 3, 2))
        assert np.isnan(rhat(values)).all()
        assert np.isnan(ess(values)).all()

    def test_no_quantity(self):
        assert rhat(np.zeros((4, 10, 0))).shape == ess(np.zeros((4, 10, 0))).shape == (0,)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind='median'; expected 'bulk', 'tail' or 'mean'"):
        ess(np.zeros((2, 10)), "median")


def test_many_quantities_at_once_are_faster_than_one_by_one():
    """Of 3 x 64 x 64 pixels and 4 x 1,000 draws a sixteenth, against ArviZ on a few of them: a third of the time."""
    values = chains_of((4, 1000, 768), dtype=np.float32)
    few = values[..., :24]
    start = time.process_time()
    theirs(arviz.rhat, few), theirs(arviz.ess, few)
    middle = time.process_time()
    rhat(values), ess(values)
    ours = time.process_time() - middle
    assert ours < (middle - start) * len(values[0, 0]) / 24 / 1.5  # half of the gain, for a busy machine


def test_error_of_sd_is_that_of_repeated_runs():
    """Over chains of their own, of a skewed law and with memory: what the standard deviations in fact spread by."""
    runs = [chains_of((4, 2000, 1), seed=seed) ** 3 for seed in range(60)]
    sds = np.array([run.std() for run in runs])
    said = np.median([float(error_of_sd(run)[0]) for run in runs])
    assert 0.6 < said / (sds.std(ddof=1) / sds.mean()) < 1.6


class TestAutocorrelationTime:
    def test_in_pieces(self, monkeypatch):
        values = torch.from_numpy(chains_of((4, 200, 30)))
        whole = autocorrelation_time(values)
        monkeypatch.setattr("posterior_inpainting.inference.results.autocorrelation._CHUNK", 4000)
        for one, other in zip(autocorrelation_time(values), whole, strict=True):
            torch.testing.assert_close(one, other)

    def test_what_does_not_vary_has_the_longest(self):
        values = torch.from_numpy(chains_of((4, 50, 2)))
        values[..., 1] = 2.0
        assert autocorrelation_time(values)[0][1] == 50


class TestEfficiency:
    ATTRS = {"draws_are": "markov", "wall_time_s": 2.0, "gradient_evaluations": 500}  # noqa: RUF012

    @pytest.fixture
    def groups(self):
        pixels = chains_of((4, 50, 8)).reshape(4, 50, 1, 2, 4)
        dims = ("chain", "draw", "channel", "row", "column")
        mask = np.arange(8).reshape(1, 2, 4) < 6
        return {
            "posterior": xr.Dataset(
                {"z": (("chain", "draw", "k"), chains_of((4, 50, 3), 1.0)), "completion": (dims, pixels)}
            ),
            "constant_data": xr.Dataset({"mask": (dims[2:], mask)}),
        }

    def test_worst_hidden_pixel(self, groups):
        worst = ess(groups["posterior"]["completion"].to_numpy()[..., 1, 2:]).min()
        found = efficiency(groups, self.ATTRS)
        assert found == pytest.approx({"ess_per_second": worst / 2, "ess_per_1000_gradients": 2 * worst})

    def test_worst_latent_where_no_pixel_is_hidden(self, groups):
        groups["constant_data"]["mask"][:] = True
        worst = ess(groups["posterior"]["z"].to_numpy()).min()
        assert efficiency(groups, self.ATTRS)["ess_per_second"] == pytest.approx(worst / 2)

    def test_a_result_as_infer_returns_it(self, groups):
        idata = to_arviz(groups, {})
        assert efficiency(idata, self.ATTRS) == efficiency(groups, self.ATTRS)

    def test_without_gradients(self, groups):
        assert set(efficiency(groups, {**self.ATTRS, "gradient_evaluations": 0})) == {"ess_per_second"}

    @pytest.mark.parametrize("draws_are", ["independent", "restarts", "path", "particles"])
    def test_none_for_other_draws(self, groups, draws_are):
        assert efficiency(groups, {**self.ATTRS, "draws_are": draws_are}) == {}
