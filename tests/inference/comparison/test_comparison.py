"""Every approach on the same images and masks: one data set, resumed, budgeted, and not lost to one that fails."""

import os
import random
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from digit import HALF, SHAPE

from posterior_inpainting.inference import (
    MALA,
    MAP,
    Approach,
    ChEES,
    Exact,
    Method,
    TemperedSMC,
    Variational,
    blend,
    compare,
    infer,
    scores,
)
from posterior_inpainting.inference.comparison import FILLINGS, Filling, markdown, sheet, table
from posterior_inpainting.inference.comparison.cells import Cell, cell_path, read_cell
from posterior_inpainting.inference.density.budget import BudgetSpentError, affordable, gradient_budget, spend
from posterior_inpainting.inference.evaluation.diversity import diversity
from posterior_inpainting.inference.methods import loop
from posterior_inpainting.models import (
    GaussianProcess,
    LatentCode,
    LinearGaussian,
    Observation,
    datasets,
    observations,
    pretrained,
)

MASKS = {
    "half:bottom": HALF,
    "scatter:0.3": observations.scatter(SHAPE, 0.3),
}


@pytest.fixture(scope="module")
def images():
    return datasets.load("digits")[:3]


@pytest.fixture(scope="module")
def approaches():
    code = LatentCode(pretrained.load("digits-vae-2d"))
    return {
        "amortised": Approach(code, Variational(), draws=200, chains=2),
        "chees": Approach(code, ChEES(warmup=20), draws=20, chains=8),
        "restarts": Approach(code, MAP(restarts=8, steps=50)),
        "gaussian process": Approach(GaussianProcess.fit, Exact(), draws=100, chains=1),
    }


@pytest.fixture(scope="module")
def comparison(approaches, images):
    return compare(approaches, images, MASKS, progress=False)


@dataclass(frozen=True)
class Failing(Method):
    """A method that fails where much is hidden."""

    def run(self, problem, plan):
        if problem.args[1].float().mean() < 0.4:
            raise RuntimeError("too little\nis seen")
        return Variational().run(problem, plan)


@dataclass(frozen=True)
class Killed(Method):
    """A method that takes its process with it, as a system that is out of memory does."""

    def run(self, problem, plan):
        os._exit(1)


class TestDataSet:
    def test_dimensions(self, comparison, approaches):
        assert list(comparison["approach"].to_numpy()) == list(approaches)
        assert dict(comparison["CRPS"].sizes) == {"approach": 4, "mask": 2, "image": 3}
        assert dict(comparison["draws"].sizes) == {
            **{"approach": 4, "mask": 2, "image": 3, "chain": 4, "draw": 16},
            **{"channel": 1, "row": 8, "column": 8},
        }
        assert not comparison["CRPS"].isnull().any()
        assert (comparison["error"] == "").all()

    def test_figures_are_those_of_the_posterior(self, comparison, approaches, images):
        """The cell's numbers are what `infer` and `score` give for the same image, mask and seed."""
        approach = approaches["amortised"]
        seen = Observation(images[1], MASKS["scatter:0.3"])
        posterior = infer(approach.model, seen, approach.method, draws=200, chains=2, progress=False)
        cell = comparison.sel(approach="amortised", mask="scatter:0.3", image=1)
        for name, value in scores.score(posterior, images[1]).items():
            assert float(cell[name]) == pytest.approx(value)
        for name, value in diversity(posterior).items():
            assert float(cell[name]) == pytest.approx(value)

    def test_seen_pixels_are_exact_in_every_draw_up_to_8_bits(self, comparison, images):
        for mask, seen in MASKS.items():
            shown = comparison["draws"].sel(mask=mask).to_numpy()[..., seen.numpy()]
            truth = images.numpy()[:, seen.numpy()][None, :, None, None]
            assert np.abs(shown - truth).max() <= 0.5 / 255 + 1e-6

    def test_gradients_and_kinds(self, comparison):
        gradients = comparison["gradients"].sel(mask="half:bottom", image=0)
        assert float(gradients.sel(approach="restarts")) == 8 * 50
        assert float(gradients.sel(approach="amortised")) == 0
        assert float(gradients.sel(approach="chees")) > 8 * 40
        kinds = comparison["draws_are"].to_numpy().tolist()
        assert kinds == ["independent", "markov", "restarts", "independent"]
        rhat = comparison["R-hat, pixels (max)"].isel(mask=0, image=0)
        assert rhat.isnull().to_numpy().tolist() == [True, False, True, True]

    def test_arviz_takes_it(self, comparison):
        arviz = pytest.importorskip("arviz")
        import matplotlib.pyplot as plt

        cells = [
            comparison[["brightness"]].sel(approach=name, mask="half:bottom", image=0, drop=True)
            for name in ("amortised", "chees")
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            if hasattr(arviz, "plot_forest"):
                axes = arviz.plot_forest(cells, model_names=["amortised", "chees"], combined=True)
                assert len(np.ravel(axes)) >= 1
        plt.close("all")

    def test_seed(self, approaches, images):
        some = {"amortised": approaches["amortised"]}
        one, same, other = (compare(some, images[:1], MASKS, seed=s, progress=False) for s in (3, 3, 4))
        assert one["draws"].equals(same["draws"])
        assert not one["draws"].equals(other["draws"])


class TestFailures:
    def test_one_that_fails_does_not_lose_the_others(self, approaches, images):
        some = {"good": approaches["amortised"], "bad": Approach(approaches["amortised"].model, Failing())}
        with pytest.warns(
            UserWarning, match=r"3 of 12 cells failed \(bad\); the first: RuntimeError: too little"
        ):
            found = compare(some, images, MASKS, progress=False)
        assert not found["CRPS"].sel(approach="good").isnull().any()
        assert found["CRPS"].sel(approach="bad").isnull().sum() == 3
        assert (
            found["error"].sel(approach="bad", mask="scatter:0.3", image=0)
            == "RuntimeError: too little is seen"
        )
        assert table(found)["failed"].to_dict() == {"good": 0.0, "bad": 3.0}
        labels = [line.split("|")[1].strip() for line in markdown(found).splitlines()[2:]]
        assert sorted(labels) == ["bad (3 of 6 failed)", "good"]

    def test_all_that_fail_are_an_error(self, images):
        code = LatentCode(pretrained.load("digits-vae-2d"))
        masks = {"scatter:0.3": MASKS["scatter:0.3"]}
        with (
            pytest.warns(UserWarning, match="3 of 3"),
            pytest.raises(
                ValueError, match="every approach failed; the first said: RuntimeError: too little"
            ),
        ):
            compare({"bad": Approach(code, Failing())}, images, masks, progress=False)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"approaches": ["resnet"]}, "unknown model 'resnet'; there are linear-gaussian"),
            ({"approaches": []}, r"approaches=\[\]; expected name -> Approach"),
            ({"approaches": "vae"}, "approaches='vae'; expected"),
            ({"approaches": {"a": Variational()}}, "approach 'a' is Variational"),
            ({"images": torch.zeros(1, 8, 8)}, r"images has shape \(1, 8, 8\)"),
            ({"images": torch.full((1, 1, 8, 8), 2.0)}, r"images leave \[0, 1\]"),
            ({"masks": {}}, "masks is empty"),
            ({"masks": {"a": torch.ones(1, 8, 8, dtype=torch.bool)}}, "mask 'a' hides nothing"),
            ({"masks": {"a": torch.ones(1, 9, 8, dtype=torch.bool)}}, "expected one that broadcasts"),
            ({"jobs": 0}, "jobs=0; expected a whole number"),
            ({"approaches": ["vae", "gan", "vae"]}, "approach 'vae' is named more than once"),
            (
                {"approaches": {"a": Approach(lambda seen: None, Exact())}, "jobs": 2},
                "jobs=2: an approach cannot",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else next(iter(value)),
    )
    def test_bad_input(self, approaches, images, change, message):
        settings = {"approaches": approaches, "images": images, "masks": MASKS} | change
        with pytest.raises(ValueError, match=message):
            compare(**settings, progress=False)

    def test_an_approach_needs_a_model_and_a_method(self):
        with pytest.raises(ValueError, match="model is a str: 'vae'; expected an ImageModel"):
            Approach("vae", Variational())
        with pytest.raises(ValueError, match="expected one such as ChEES"):
            Approach(GaussianProcess.fit, Variational)


class TestResuming:
    def test_cells_are_read_and_not_computed_again(self, approaches, images, tmp_path, monkeypatch):
        some = {name: approaches[name] for name in ("amortised", "gaussian process")}
        whole = compare(some, images, MASKS, store=tmp_path, progress=False)
        monkeypatch.setattr(
            Cell, "compute", lambda cell, model=None: pytest.fail("a cell was computed again")
        )
        again = compare(some, images, MASKS, store=tmp_path, progress=False)
        assert whole.equals(again)

    def test_ctrl_c_ends_it_and_keeps_no_half_cell(self, approaches, images, tmp_path, monkeypatch):
        """A method keeps what it drew; a comparison wants whole cells, and once took a half one for whole."""
        chains = {"chains": Approach(approaches["amortised"].model, ChEES(warmup=20), draws=60, chains=4)}
        take, count = loop._Recorder.take, [0]

        def interrupted(self, row):
            count[0] += 1
            if count[0] > 50:
                raise KeyboardInterrupt
            return take(self, row)

        with monkeypatch.context() as patch:
            patch.setattr(loop._Recorder, "take", interrupted)
            with pytest.raises(KeyboardInterrupt):
                compare(chains, images, MASKS, store=tmp_path, progress=False)
        assert not list(tmp_path.rglob("*.nc"))

    def test_another_setting_computes_that_approach_alone(self, approaches, images, tmp_path, monkeypatch):
        some = {name: approaches[name] for name in ("amortised", "restarts")}
        compare(some, images, MASKS, store=tmp_path, progress=False)
        computed = []
        original = Cell.compute
        monkeypatch.setattr(
            Cell, "compute", lambda cell, model=None: computed.append(cell.approach) or original(cell, model)
        )
        changed = some | {"restarts": Approach(approaches["restarts"].model, MAP(restarts=4, steps=50))}
        compare(changed, images, MASKS, store=tmp_path, progress=False)
        assert computed == 6 * [changed["restarts"]]

    def test_another_image_mask_seed_budget_or_weights_computes(self, approaches, images):
        approach = approaches["restarts"]
        observation = Observation(images[0], MASKS["half:bottom"])
        first = Cell(approach, observation, images[0])
        others = [
            Cell(approach, Observation(images[1], MASKS["half:bottom"]), images[1]),
            Cell(approach, Observation(images[0], MASKS["scatter:0.3"]), images[0]),
            Cell(approach, observation, images[0], seed=1),
            Cell(approach, observation, images[0], budget=10),
            Cell(Approach(approach.model, approach.method, draws=51), observation, images[0]),
            Cell(Approach(approach.model, approach.method, finish=blend), observation, images[0]),
        ]
        signatures = {cell.signature("weights") for cell in (first, *others)} | {
            first.signature("other weights")
        }
        assert len(signatures) == 8
        assert first.signature("weights") == Cell(approach, observation, images[0]).signature("weights")

    def test_a_function_that_makes_another_model_computes(self, images, tmp_path):
        """Of two functions with the same name and code, that close over different numbers."""

        def errors(latent):
            fitted = Approach(
                lambda seen: LinearGaussian.fit(datasets.load("digits"), latent=latent), Exact()
            )
            return compare({"a": fitted}, images[:1], MASKS, store=tmp_path, progress=False)["CRPS"]

        assert not errors(2).equals(errors(30))

    def test_names_that_differ_have_files_that_differ(self, tmp_path):
        paths = {cell_path(tmp_path, name, "half", 0) for name in ("a b", "a-b", "a  b", "a/b")}
        assert len(paths) == 4

    def test_a_damaged_cell_is_computed_again(self, approaches, images, tmp_path, capsys):
        some = {"amortised": approaches["amortised"]}
        whole = compare(some, images, MASKS, store=tmp_path, progress=False)
        path = cell_path(tmp_path, "amortised", "half:bottom", 1)
        path.write_bytes(path.read_bytes()[:1000])
        (path.with_name("1.999999999.part")).write_bytes(b"of a process that was killed")
        assert read_cell(path, "any") is None
        capsys.readouterr()
        again = compare(some, images, MASKS, store=tmp_path, progress=False)
        assert capsys.readouterr().err == f"{path} is damaged, and computed anew\n"
        assert whole["draws"].equals(again["draws"])
        assert not [*tmp_path.rglob("*.part")]

    def test_no_flipped_bit_of_a_cell_goes_unseen(self, approaches, images, tmp_path):
        compare({"amortised": approaches["amortised"]}, images[:1], MASKS, store=tmp_path, progress=False)
        path = cell_path(tmp_path, "amortised", "half:bottom", 0)
        with xr.open_dataset(path, engine="h5netcdf") as found:
            signature = found.attrs["signature"]
        whole = read_cell(path, signature)
        chance = random.Random(0)
        for file in (path, path.with_suffix(".sha256")) * 100:
            content = file.read_bytes()
            damaged = bytearray(content)
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            file.write_bytes(damaged)
            assert read_cell(path, signature) is None
            file.write_bytes(content)
        assert read_cell(path, signature).identical(whole)

    @pytest.mark.long
    def test_a_killed_run_goes_on(self, tmp_path):
        """SIGKILL in the middle; the second run reads what the first has done and ends with the same numbers."""
        script = tmp_path / "run.py"
        script.write_text(
            "import sys, torch\n"
            "from posterior_inpainting.inference import Approach, Variational, compare\n"
            "from posterior_inpainting.models import LatentCode, datasets, observations, pretrained\n"
            "model = LatentCode(pretrained.load('digits-vae-2d'))\n"
            "masks = {'half': observations.half((1, 8, 8), hide='bottom')}\n"
            "some = {'amortised': Approach(model, Variational(), draws=200, chains=2)}\n"
            "found = compare(some, datasets.load('digits')[:20], masks, store=sys.argv[1], progress=False)\n"
            "found.to_netcdf(sys.argv[2], engine='h5netcdf')\n"
        )

        def files():
            return sorted((tmp_path / "cells").rglob("*.nc"))

        command = [sys.executable, str(script), str(tmp_path / "cells"), str(tmp_path / "killed.nc")]
        killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while len(files()) < 3 and killed.poll() is None:
            time.sleep(0.02)
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        before = {path: path.stat().st_mtime_ns for path in files()}
        assert 3 <= len(before) < 20
        assert not (tmp_path / "killed.nc").exists()
        for folder, name in (("cells", "resumed.nc"), ("others", "whole.nc")):
            command = [sys.executable, str(script), str(tmp_path / folder), str(tmp_path / name)]
            subprocess.run(command, check=True, timeout=300)
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
        import xarray as xr

        resumed, whole = (
            xr.load_dataset(tmp_path / name, engine="h5netcdf") for name in ("resumed.nc", "whole.nc")
        )
        assert resumed.drop_vars("seconds").equals(whole.drop_vars("seconds"))

    def test_a_process_that_is_killed_is_an_error_of_its_cells(self, images):
        code = LatentCode(pretrained.load("digits-vae-2d"))
        bad = Approach(code, Killed())
        with (
            pytest.warns(UserWarning, match=r"cells failed .*BrokenProcessPool"),
            pytest.raises(ValueError, match="every approach failed; the first said: BrokenProcessPool"),
        ):
            compare({"bad": bad}, images[:1], MASKS, jobs=2, progress=False)

    @pytest.mark.long
    def test_processes_side_by_side_give_the_same(self, approaches, images):
        some = {name: approaches[name] for name in ("amortised", "restarts")}
        one = compare(some, images[:2], MASKS, progress=False)
        two = compare(some, images[:2], MASKS, jobs=2, progress=False)
        assert one.drop_vars("seconds").equals(two.drop_vars("seconds"))


class TestBudget:
    @pytest.fixture
    def seen(self, images):
        return Observation(images[0], MASKS["half:bottom"])

    @pytest.mark.parametrize("budget", [1000, 1234], ids=str)
    def test_chains_end_with_the_draws_they_have(self, approaches, seen, budget):
        with gradient_budget(budget):
            found = infer(
                approaches["chees"].model,
                seen,
                MALA(warmup=20, init="prior"),
                draws=500,
                chains=8,
                progress=False,
            )
        assert budget - 8 < found.attrs["gradient_evaluations"] <= budget
        assert found.attrs["budget_spent"] == 1
        assert 0 < found.posterior.sizes["draw"] < 500

    def test_optimisers_plan_ahead(self, approaches, seen):
        with gradient_budget(810):
            found = infer(approaches["chees"].model, seen, MAP(restarts=8, steps=1000), progress=False)
        assert found.attrs["gradient_evaluations"] == 8 * 101
        with gradient_budget(805):
            found = infer(approaches["chees"].model, seen, Variational("normal"), draws=9, progress=False)
        assert found.attrs["gradient_evaluations"] == 8 * 100

    def test_who_has_nothing_to_give_says_so(self, approaches, seen):
        for method in (ChEES(warmup=100), TemperedSMC()):
            with (
                gradient_budget(100),
                pytest.raises(BudgetSpentError, match="the budget of gradients is spent"),
            ):
                infer(approaches["chees"].model, seen, method, draws=10, chains=8, progress=False)

    def test_nothing_is_limited_outside(self):
        with gradient_budget(3):
            spend(2)
            assert affordable(10, 1) == 1
            with pytest.raises(BudgetSpentError, match="1 are left, a step takes 2"):
                spend(2)
        spend(1000)
        assert affordable(10, 1000) == 10

    @pytest.mark.parametrize("count", [0, -1, 2.5], ids=str)
    def test_bad_budget(self, count):
        with pytest.raises(ValueError, match="expected a whole number of gradients"), gradient_budget(count):
            pass

    def test_of_a_comparison(self, approaches, images):
        some = {"restarts": approaches["restarts"]}
        found = compare(some, images[:1], MASKS, budget=80, progress=False)
        assert (found["gradients"] == 80).all()


class TestViews:
    def test_table_is_the_mean(self, comparison):
        shown = table(comparison, "half:bottom")
        expected = comparison["CRPS"].sel(mask="half:bottom").mean("image").to_numpy()
        np.testing.assert_allclose(shown["CRPS"], expected)
        error = comparison["CRPS"].sel(mask="half:bottom").std("image", ddof=1).to_numpy() / np.sqrt(3)
        np.testing.assert_allclose(shown["CRPS, standard error"], error)

    def test_differences_are_paired_image_by_image(self, comparison):
        """By hand; the standard error of a difference is not that of two means which know nothing of each other."""
        shown, crps = table(comparison), comparison["CRPS"].to_numpy()
        names = comparison["approach"].to_numpy().tolist()
        best = crps.mean((1, 2)).argmin()
        for name, own in zip(names, crps, strict=True):
            by_image = (own - crps[best]).mean(0)
            assert shown.loc[name, "CRPS above the best"] == pytest.approx(by_image.mean())
            error = by_image.std(ddof=1) / np.sqrt(3)
            assert shown.loc[name, "CRPS above the best, standard error"] == pytest.approx(error)
        other = shown.index[shown["CRPS above the best"] > 0][0]
        apart = np.hypot(*shown.loc[[names[best], other], "CRPS, standard error"])
        assert shown.loc[other, "CRPS above the best, standard error"] != pytest.approx(apart, rel=1e-3)

    def test_a_cell_that_failed_is_in_no_difference(self, comparison):
        """An approach that failed on a hard image must not be compared with what the best had on it."""
        holed = comparison.copy(deep=True)
        best, other = table(comparison)["CRPS"].sort_values().index[:2]
        at = {"approach": other, "image": 1}
        holed["CRPS"].loc[at] = np.nan
        left = holed["CRPS"].sel(image=[0, 2])
        expected = (left.sel(approach=other) - left.sel(approach=best)).mean().item()
        assert table(holed).loc[other, "CRPS above the best"] == pytest.approx(expected)

    def test_markdown_puts_the_best_first_and_marks_restarts(self, comparison):
        lines = markdown(comparison).splitlines()
        assert len(lines) == 6
        assert lines[0].startswith("| approach | PSNR of the mean (dB) | SSIM of the mean | CRPS |")
        values = [float(line.split("|")[4]) for line in lines[2:]]
        assert values == sorted(values)
        assert sum("restarts (restarts)" in line for line in lines) == 1
        column = [part.strip() for part in lines[0].split("|")].index("CRPS above the best")
        above = [line.split("|")[column].strip() for line in lines[2:]]
        assert above[0] == ""
        assert all(re.fullmatch(r"\.\d{4} \(\.\d{4}\)", one) for one in above[1:])

    def test_sheet(self, comparison):
        import matplotlib.pyplot as plt

        axes = sheet(comparison, image=2, mask="scatter:0.3", draws=5, title="three")
        assert axes.shape == (5, 7)
        shown = np.asarray(axes[1, 2].get_images()[0].get_array())
        expected = comparison["draws"].sel(approach="amortised", image=2, mask="scatter:0.3")
        np.testing.assert_allclose(shown, expected[0, 0, 0])
        plt.close("all")


def half_bright(observation):
    """A filling that says the same of every hidden pixel."""
    return torch.where(observation.mask, observation.image, 0.5)


@pytest.fixture(scope="module")
def filled(approaches, images):
    some = {"half": Filling(half_bright), **FILLINGS, "amortised": approaches["amortised"]}
    return compare(some, images, MASKS, progress=False)


class TestFillings:
    def test_crps_is_the_mean_absolute_error_and_there_is_no_coverage(self, filled, images):
        for mask, seen in MASKS.items():
            for number, image in enumerate(images):
                cell = filled.sel(approach="half", mask=mask, image=number)
                error = (image - 0.5)[~seen].double()
                assert float(cell["CRPS"]) == pytest.approx(float(error.abs().mean()), rel=1e-5)
                psnr = -10 * np.log10(float(error.square().mean()))
                assert float(cell["PSNR of the mean (dB)"]) == pytest.approx(psnr, rel=1e-5)
        alone = filled.sel(approach=["half", "biharmonic"])
        for name in ("coverage 95%", "draws", "brightness", "R-hat, pixels (max)", "diversity (RMSE)"):
            if name in filled:
                assert alone[name].isnull().all(), name
        assert (filled["draws_are"] == ["filling", "filling", "independent"]).all()

    def test_biharmonic_is_scikit_images(self, filled, images):
        from skimage.restoration import inpaint_biharmonic

        seen = MASKS["scatter:0.3"].numpy()[0]
        expected = inpaint_biharmonic(np.where(seen, images[1, 0], 0).astype(float), ~seen)
        mean = filled["mean"].sel(approach="biharmonic", mask="scatter:0.3", image=1)
        np.testing.assert_allclose(mean[0], np.where(seen, images[1, 0], expected), atol=1e-6)

    def test_hidden_pixels_are_not_read(self, images):
        fill, mask = FILLINGS["biharmonic"].fill, MASKS["half:bottom"]
        other = torch.where(mask, images[0], torch.nan)
        assert torch.equal(fill(Observation(images[0], mask)), fill(Observation(other, mask)))

    def test_a_channel_of_which_nothing_is_seen(self, images):
        nothing = Observation(images[0], torch.zeros(SHAPE, dtype=torch.bool))
        with pytest.raises(
            ValueError, match="nothing is seen of channel 0; a biharmonic filling needs some pixels"
        ):
            FILLINGS["biharmonic"].fill(nothing)

    def test_it_has_a_row_and_a_picture_and_no_draws(self, filled):
        import matplotlib.pyplot as plt

        assert "| biharmonic (mean only) | " in markdown(filled)
        axes = sheet(filled, image=0, draws=3)
        assert [len(axes[row, 2].get_images()) for row in (1, 2, 3)] == [0, 0, 1]
        assert axes[3, 2].get_title() == "draw 1"
        plt.close("all")

    def test_cells_are_kept_and_another_filling_computes(self, images, tmp_path, monkeypatch):
        first = compare({"a": Filling(half_bright)}, images, MASKS, store=tmp_path, progress=False)
        calls = []

        def other(observation):
            calls.append(observation)
            return torch.where(observation.mask, observation.image, 0.25)

        again = compare({"a": Filling(half_bright)}, images, MASKS, store=tmp_path, progress=False)
        assert first.equals(again)
        compare({"a": Filling(other)}, images, MASKS, store=tmp_path, progress=False)
        assert len(calls) == 6

    def test_named_beside_models_of_the_catalogue(self, images):
        found = compare(["digits-vae-2d", "biharmonic"], images[:1], {"half:bottom": HALF}, progress=False)
        assert found["draws_are"].to_numpy().tolist()[1] == "filling"


class TestDiversity:
    def test_known_spread(self):
        """Gaussian draws of sd s differ by s sqrt(2), here on every hidden pixel independently."""
        seen = Observation(torch.full(SHAPE, 0.5), MASKS["half:bottom"])
        linear = LinearGaussian(torch.zeros(64, 1), torch.full(SHAPE, 0.5), 0.1)
        flat = infer(linear, seen, Exact(), draws=400, chains=1, progress=False)
        assert diversity(flat)["diversity (RMSE)"] == pytest.approx(0, abs=1e-6)
        assert diversity(flat)["diversity (1 - SSIM)"] == pytest.approx(0, abs=1e-6)
        spread = flat.copy()
        noise = 0.1 * np.random.default_rng(0).standard_normal(spread.posterior["completion"].shape)
        spread.posterior["completion"] = spread.posterior["completion"] + noise
        # The mean of a root is below the root of the mean, by 1 / (4 n) for n pixels; 1.6 % are 2.5 standard errors.
        expected = 0.1 * np.sqrt(2) * (1 - 1 / (4 * 32))
        assert diversity(spread)["diversity (RMSE)"] == pytest.approx(expected, rel=0.016)

    def test_one_draw_or_no_hole(self, digits_model):
        image = datasets.load("digits")[0]
        seen = Observation(image, torch.ones(SHAPE, dtype=torch.bool))
        posterior = infer(digits_model, seen, Variational(), draws=9, progress=False)
        with pytest.raises(ValueError, match="no pixel is hidden"):
            diversity(posterior)
        seen = Observation(image, MASKS["half:bottom"])
        posterior = infer(digits_model, seen, Variational(), draws=1, chains=1, progress=False)
        with pytest.raises(ValueError, match="there is 1 draw"):
            diversity(posterior)
