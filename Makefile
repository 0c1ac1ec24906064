# One menu of commands; CI calls the same. Needs Python 3.11 and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A CPU build of torch where the index has one; harmless where it has not.
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Several processes share the cores in tests: one BLAS thread each.
ONE := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help demo test test-all test-arviz1 lint types notebooks bench bench-models bench-photographs bench-posteriordb compare architectures train clean

help:  ## show this menu
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 28

# A stamp a set of extras: a second call does not reinstall unless the metadata changed.
$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed  ## complete a bundled image by MCMC; look at out/demo/completions.png
	$(ONE) $(BIN)/posterior-inpainting complete sample:fashion-mnist/0 --mask half:bottom --out out/demo

test: $(VENV)/installed-dev  ## run the tests, but for those marked long
	$(ONE) $(BIN)/python -m pytest -n 2 -q -m "not long"

test-all: $(VENV)/installed-dev  ## run all tests: what CI calls
	$(ONE) $(BIN)/python -m pytest -n 2 -q --durations=30

# Without its dependencies, all of which are there, and whatever Python it asks for: it runs on 3.11 as well.
build/arviz1/installed: constraints-arviz1.txt $(VENV)/installed-dev
	rm -rf $(@D)
	$(PIP) install -q --no-deps --ignore-requires-python --target $(@D) -r $<
	touch $@

test-arviz1: build/arviz1/installed  ## run the tests of results, plots and two notebooks against ArviZ 1
	PYTHONPATH=$(CURDIR)/build/arviz1 $(ONE) $(BIN)/python -m pytest -n 2 -q -m "not long" \
		tests/inference/results tests/inference/evaluation
	PYTHONPATH=$(CURDIR)/build/arviz1 $(ONE) $(BIN)/python -m pytest -n 2 -q tests/package/test_notebooks.py \
		-k "test_runs and (01_ or 04_)"

lint: $(VENV)/installed-dev types  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev  ## check types only
	@mkdir -p build/typing/posterior_inpainting
	@ln -sfn ../../../models build/typing/posterior_inpainting/models
	@ln -sfn ../../../inference build/typing/posterior_inpainting/inference
	$(BIN)/mypy -p posterior_inpainting.models -p posterior_inpainting.inference

notebooks: $(VENV)/installed-dev  ## run every notebook in full and keep its pictures
	$(ONE) $(BIN)/jupyter execute --inplace notebooks/*.ipynb

bench: $(VENV)/installed-bench  ## time our samplers against Pyro's, NumPyro's and BlackJAX's, also until draws can be trusted
	$(ONE) $(BIN)/python tests/benchmarks/sampling.py
	$(ONE) $(BIN)/python tests/benchmarks/contest.py

bench-posteriordb: $(VENV)/installed-bench  ## hold the default call to posteriordb's reference draws, beside other samplers
	$(ONE) $(BIN)/python tests/benchmarks/posteriordb.py

bench-models: $(VENV)/installed  ## measure the models over pixels and weights: the tables in tests/benchmarks
	for name in gaussian_process colourisation deep_image_prior deep_image_prior_chains bayes_by_backprop pruning code_and_weights weight_posteriors \
			pixel_constrained pixels_by_particles pluralistic generator geology endings diffusion_posteriors priors expert_field fit_of_seen learning trials_of_damage; do \
		$(ONE) $(BIN)/python tests/benchmarks/$$name.py || exit 1; done

bench-photographs: $(VENV)/installed  ## measure the priors of photographs on eight of them behind four masks
	$(ONE) $(BIN)/python tests/benchmarks/photographs.py

$(VENV)/installed-bench: $(VENV)/installed
	$(PIP) install -q -c constraints.txt -e '.[bench]'
	touch $@

compare: $(VENV)/installed  ## every approach on 20 test images that chose nothing, behind 3 masks: a table, in out/comparison
	$(ONE) $(BIN)/posterior-inpainting compare --images 5000-5019 --jobs 2 --out out/comparison

architectures: $(VENV)/installed  ## compare decoders for the Fashion-MNIST prior: the table of its card
	$(BIN)/python tests/benchmarks/architectures.py

# In the order of the recipes, in which one starts from another.
train: $(VENV)/installed  ## train everything that is bundled anew
	for name in $$($(BIN)/python -c "from posterior_inpainting.inference.recipes import RECIPES; print(*RECIPES)"); do \
		$(MAKE) train-$$name || exit 1; done

train-%: $(VENV)/installed  ## train one of them, e.g. train-digits-vae-2d
	$(BIN)/posterior-inpainting train $* --out models/networks/weights

# DEVICE=cuda for the denoiser, which takes a GPU 8 minutes and a processor more than a day.
# Debian's package of the photographs; elsewhere unpack its files into a folder, and give `train --root FOLDER`.
WALLPAPERS := /usr/share/backgrounds/aitzgorri_by_Aitzol_Berasategi.jpg
$(WALLPAPERS):
	apt-get install -y lomiri-wallpapers-16.04

train-photographs-%: $(VENV)/installed | $(WALLPAPERS)
	$(BIN)/posterior-inpainting train photographs-$* --out models/networks/weights --checkpoints build/checkpoints \
		$(if $(DEVICE),--device $(DEVICE))

clean:  ## remove what the commands made
	rm -rf $(VENV) build out dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
