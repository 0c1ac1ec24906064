"""One name, one model: nothing public without a name, and each name makes what its entry says."""

import importlib
import inspect
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from registry import UNNAMED

from posterior_inpainting import inference, models
from posterior_inpainting.inference import MAP, Approach, Auto, ChEES, Exact, Method, Nested, catalogue, infer
from posterior_inpainting.inference.catalogue import (
    APPROACHES,
    MASKS,
    METHODS,
    MODELS,
    PRIORS,
    Entry,
    making,
    written,
)
from posterior_inpainting.inference.comparison import FILLINGS
from posterior_inpainting.inference.results.fingerprint import fingerprint
from posterior_inpainting.models import ImageModel, Observation, datasets, geology, observations, pretrained

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()

#: Public mask makers that draw many masks to train on.
MANY = {"random_masks"}
#: Masks as they are written, and what they are: at least one of each kind.
WRITTEN_MASKS = [
    ("box:1,2,3,4", lambda s: observations.box(s, 1, 2, 3, 4)),
    ("half:left", lambda s: observations.half(s, "left")),
    ("strokes:2,3", lambda s: observations.strokes(s, 2, 3)),
    ("strokes:2,3,7", lambda s: observations.strokes(s, 2, 3, 7)),
    ("blobs:2", lambda s: observations.blobs(s, 2)),
    ("blobs:2,7", lambda s: observations.blobs(s, 2, 7)),
    ("scatter:0.3", lambda s: observations.scatter(s, 0.3)),
    ("scatter:0.3,7", lambda s: observations.scatter(s, 0.3, 7)),
    ("grid:3", lambda s: observations.grid(s, 3)),
    ("wells:3", lambda s: geology.wells(s, 3)),
    ("wells:3,7", lambda s: geology.wells(s, 3, 7)),
    ("columns:3,7", lambda s: geology.columns(s, 3, 7)),
    ("channels:1", lambda s: observations.channels(s, 1)),
    ("channels:0,2", lambda s: observations.channels(s, [0, 2])),
    ("channels:2,1,0", lambda s: observations.channels(s, [0, 1, 2])),
]


def shape_for(entry):
    """The shape of a small image that an entry takes."""
    small = (1, 8, 8) if entry.channels is None else (entry.channels, entry.least, entry.least)
    return entry.shape or small


def made(name):
    """The model of a name, for an image that it takes; ``None`` where it needs a data set that may not be here."""
    entry = MODELS[name]
    if entry.made_from == "data":
        return None
    shape = shape_for(entry)
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return catalogue.build(name, Observation(image, observations.scatter(shape, 0.3))).model


def modules_of(package):
    """Names of all modules in a folder."""
    files = sorted((ROOT / package).rglob("*.py"))
    return [
        ".".join(("posterior_inpainting", *f.relative_to(ROOT).with_suffix("").parts))
        for f in files
        if f.stem != "__init__"
    ]


def makes_masks(value):
    """Whether something is a function from the shape of an image."""
    return inspect.isfunction(value) and list(inspect.signature(value).parameters)[:1] == ["shape"]


@pytest.fixture(scope="module")
def kinds():
    return {name: type(model).__name__ for name in MODELS if (model := made(name)) is not None}


class TestNothingIsForgotten:
    def test_methods(self):
        public = {
            name
            for name in inference.__all__
            if inspect.isclass(value := getattr(inference, name))
            and issubclass(value, Method)
            and not inspect.isabstract(value)
        }
        assert len(public) >= 13
        missing = public - {type(one.make()).__name__ for one in METHODS.values()}
        assert not missing, (
            f"{', '.join(sorted(missing))} has no name: add a MethodEntry to inference/catalogue/methods.py"
        )

    def test_methods_have_rows_in_the_readme(self):
        lines = [line for line in README.splitlines() if line.startswith("| `")]
        kinds = {type(one.make()).__name__ for one in METHODS.values()}
        missing = {kind for kind in kinds if not any(f"`{kind}(" in line for line in lines)}
        assert not missing, f"{', '.join(sorted(missing))} has no row in the table of methods of README.md"

    @pytest.mark.parametrize(
        ("package", "base", "public"),
        [("models", ImageModel, models), ("inference/methods", Method, inference)],
        ids=["models", "methods"],
    )
    def test_files_of_models_and_methods_export_them(self, package, base, public):
        """A class that stands in a file, and is not public, is in no list that another test could read."""
        found = {
            kind
            for name in modules_of(package)
            for kind in vars(importlib.import_module(name)).values()
            if inspect.isclass(kind) and issubclass(kind, base) and kind.__module__ == name
        }
        concrete = {
            kind.__name__
            for kind in found - {base}
            if not kind.__name__.startswith("_") and not inspect.isabstract(kind)
        }
        assert len(concrete) >= 13
        missing = concrete - set(vars(public))
        assert not missing, (
            f"{', '.join(sorted(missing))} is not exported: add it to {package.split('/')[0]}/__init__.py"
        )

    def test_what_is_made_has_an_entry(self):
        """A function of making.py that no entry calls makes no model."""
        makers = {value for value in vars(making).values() if inspect.isfunction(value)}
        public = {
            maker.__name__
            for maker in makers
            if maker.__module__ == making.__name__ and maker.__name__[0] != "_"
        }
        used = {getattr(one.make, "func", one.make).__name__ for one in MODELS.values()}
        assert not public - used, (
            f"making.{', making.'.join(sorted(public - used))} makes no model: add an Entry to "
            "inference/catalogue/compared.py or further.py"
        )

    def test_models(self, kinds):
        public = {
            name
            for name, value in vars(models).items()
            if inspect.isclass(value) and issubclass(value, ImageModel) and value is not ImageModel
        }
        unnamed = {kind.__name__ for kind in UNNAMED}
        missing = public - set(kinds.values()) - unnamed
        assert not missing, (
            f"{', '.join(sorted(missing))} has no name: add how it is made to inference/catalogue/making.py and an "
            "Entry to inference/catalogue/further.py, or a reason to UNNAMED of tests/registry.py"
        )
        assert not unnamed & set(kinds.values()), (
            "a model with a name needs no reason in UNNAMED of tests/registry.py"
        )

    def test_mask_makers(self):
        makers = {
            name
            for module in (observations, geology)
            for name in module.__all__
            if makes_masks(getattr(module, name))
        }
        assert {"box", "wells"} <= makers
        files = ["posterior_inpainting.models.observations", *modules_of("models/geology")]
        defined = {
            name
            for file in files
            for name, value in vars(importlib.import_module(file)).items()
            if makes_masks(value) and value.__module__ == file and name[0] != "_"
        }
        assert not defined - makers, (
            f"{', '.join(sorted(defined - makers))} is not public: add it to __all__ of models/observations.py or of "
            "models/geology/__init__.py"
        )
        missing = makers - MANY - set(MASKS)
        assert not missing, (
            f"{', '.join(sorted(missing))} has no name: add a MaskEntry to inference/catalogue/masks.py"
        )

    def test_masks_are_tried_and_stand_in_the_readme(self):
        untried = set(MASKS) - {spec.split(":")[0] for spec, _ in WRITTEN_MASKS}
        assert not untried, (
            f"{', '.join(sorted(untried))} has no row in WRITTEN_MASKS of {Path(__file__).name}"
        )
        unwritten = {name for name in MASKS if f"`{name}:" not in README}
        assert not unwritten, (
            f"{', '.join(sorted(unwritten))} is not in README.md, after 'A mask is given as'"
        )

    def test_priors(self):
        folder = ROOT / "models" / "networks" / "weights"
        bundled = {path.name.split(".")[0] for path in folder.glob("*.safetensors")}
        missing = bundled - set(PRIORS)
        assert not missing, (
            f"{', '.join(sorted(missing))} is bundled without a name: add a PriorEntry to inference/catalogue/priors.py"
        )
        absent = set(PRIORS) - set(pretrained.names())
        assert not absent, (
            f"{', '.join(sorted(absent))} has no files: run `posterior-inpainting train NAME --out "
            "models/networks/weights`"
        )
        words = re.findall(r"`([\w-]+)`", README)  # the README shortens a name to its last words: `-binary`
        untold = {n for n in bundled if not any(n == w or (w[0] == "-" and n.endswith(w)) for w in words)}
        assert not untold, f"{', '.join(sorted(untold))} is not among the bundled networks of README.md"
        unused = bundled - {prior for one in MODELS.values() for prior in one.priors}
        assert not unused, (
            f"no model is made of {', '.join(sorted(unused))}: add an Entry to inference/catalogue/further.py"
        )

    def test_approaches_stand_in_the_readme(self):
        rows = set(
            re.findall(r"^\| ([\w-]+)(?: \((?:restarts|mean only)\))? \| [\d.]+ \|", README, re.MULTILINE)
        )
        missing = set(APPROACHES) - rows
        assert not missing, (
            f"{', '.join(sorted(missing))} has no row in the comparison of README.md: run `make compare`, and copy its "
            "table.md"
        )
        known = {*APPROACHES, *FILLINGS}
        assert rows <= known, f"README.md compares {rows - known}, which are neither approaches nor fillings"


class TestModels:
    def test_names_are_those_of_the_entries(self):
        for table in (MODELS, METHODS, MASKS, PRIORS):
            assert all(name == one.name for name, one in table.items())

    @pytest.mark.parametrize("name", MODELS)
    def test_it_takes_the_images_that_it_says(self, name, kinds):
        entry = MODELS[name]
        if name in kinds:
            assert tuple(made(name).image_shape) == shape_for(entry)

    @pytest.mark.parametrize("name", MODELS)
    def test_it_needs_what_it_says(self, name, monkeypatch):
        """The bundled networks that are loaded are those of the entry, and no data set unless it says so."""
        loaded, place = set(), pretrained._place
        monkeypatch.setattr(pretrained, "_place", lambda name: loaded.add(name) or place(name))
        data = []
        load = datasets.load
        monkeypatch.setattr(datasets, "load", lambda *a, **k: data.append(a) or load(*a, **k))
        made(name)
        assert loaded == set(MODELS[name].priors)
        assert bool(data) <= (MODELS[name].made_from == "patches")

    def test_sent_to_another_process(self):
        for name in MODELS:
            sent = pickle.loads(pickle.dumps(catalogue.approach(name)))
            assert fingerprint(sent) == fingerprint(catalogue.approach(name))

    def test_nothing_is_loaded_before_an_observation_comes(self, monkeypatch):
        monkeypatch.setattr(pretrained, "_place", lambda name: pytest.fail(f"{name} was loaded"))
        assert all(isinstance(catalogue.approach(name), Approach) for name in MODELS)

    def test_untrained_networks_are_the_same_each_time_and_leave_the_callers_generator(self):
        torch.manual_seed(5)
        before = torch.random.get_rng_state()
        one, two = (made("deep-image-prior").state_dict() for _ in range(2))
        assert all(torch.equal(value, two[key]) for key, value in one.items())
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_build_has_the_settings_of_the_entry(self):
        image = datasets.load("fashion-mnist-samples")[0]
        seen = Observation(image, observations.half(image.shape, hide="bottom"))
        built = catalogue.build("gan", seen)
        assert isinstance(built.model, models.LatentCode)
        assert (built.method, built.draws, built.chains) == (Auto(), 2000, 16)

    @pytest.mark.parametrize(
        ("name", "method"),
        [
            ("weight-draws", Nested(ChEES(warmup=10, max_steps=4))),
            ("river-channels-nearest", MAP(restarts=2, steps=2)),
            ("pixel-constrained-binary", Exact()),
        ],
    )
    def test_those_that_are_not_compared_complete_an_image(self, name, method):
        """By a short run of the entry's own kind of method."""
        entry = MODELS[name]
        assert isinstance(entry.method, type(method))
        rivers = torch.rand(entry.shape, generator=torch.Generator().manual_seed(0))
        image = rivers if entry.shape != (1, 28, 28) else datasets.load("fashion-mnist-samples")[0]
        seen = Observation(image, observations.box(entry.shape, 2, 2, 3, 3))
        posterior = infer(catalogue.build(name, seen).model, seen, method, draws=4, chains=2, progress=False)
        assert posterior.posterior["completion"].shape[-3:] == entry.shape

    def test_yeh_ends_in_blending(self):
        """Four steps has the published method; without the last, a seam runs round the hole."""
        chosen = catalogue.approach("yeh")
        assert chosen.method.steps >= 1000
        image = datasets.load("fashion-mnist-samples")[0]
        seen = Observation(image, observations.box(image.shape, 8, 8, 12, 12))
        short = replace(chosen, method=replace(chosen.method, restarts=2, steps=3))
        posterior = short.complete(seen, progress=False)
        completion = torch.from_numpy(posterior.posterior["completion"].to_numpy())
        assert torch.equal(completion[..., seen.mask], image[seen.mask].expand(2, 1, -1))
        assert MODELS["yeh"].settings.endswith(", then blend")

    def test_patches_of_the_size_of_the_image(self):
        seen = Observation(torch.rand(1, 6, 6), observations.scatter((1, 6, 6), 0.5))
        assert catalogue.build("digits-linear", seen).model.image_shape == (1, 6, 6)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [((1, 9, 9), "takes 1 x n x n, n <= 8"), ((3, 8, 8), "takes 1 x n x n, n <= 8")],
        ids=str,
    )
    def test_patches_that_there_are_not(self, shape, message):
        seen = Observation(torch.rand(shape), observations.scatter(shape, 0.5))
        with pytest.raises(ValueError, match=message):
            catalogue.build("digits-linear", seen)

    def test_holes_of_a_photograph_in_windows(self):
        """Model by model: as many draws as are asked for, and beyond the margins what was seen."""
        image = torch.linspace(0.2, 0.8, 90).expand(3, 120, 90).contiguous()
        mask = observations.box(image.shape, 4, 4, 2, 3) & observations.box(image.shape, 100, 80, 3, 2)
        for entry in (one for one in MODELS.values() if one.margin is not None):
            chosen = replace(entry.approach(), draws=2, chains=1)
            entry.check(Observation(image, mask), chosen)
            posterior = chosen.complete(Observation(image, mask), progress=False)
            completion = torch.from_numpy(posterior.posterior["completion"].to_numpy())
            assert completion.shape == (1, 2, 3, 120, 90)
            assert posterior.attrs["windows"] == 2
            beyond = completion[0, 0, :, 45:60, :40]
            assert torch.equal(beyond, image[:, 45:60, :40])
            assert float((completion[0, 0] - image)[mask].abs().max()) < 0.2
            assert not torch.equal(completion[0, 0], completion[0, 1])

    @pytest.mark.parametrize("name", ["gaussian-process", "deep-image-prior-full", "photographs-experts"])
    def test_large_images_have_fewer_draws_by_default(self, name):
        entry = MODELS[name]
        assert entry.draws_for((3, 32, 32)) == entry.draws
        large = entry.draws_for((3, 400, 400)) * entry.chains
        assert 8 <= large < min(24, entry.draws * entry.chains + 1)

    def test_memory_grows_with_the_window_and_not_with_the_photograph(self):
        entry = MODELS["photographs-diffusion"]
        shape = (3, 1_000, 1_500)
        small, large = observations.box(shape, 10, 10, 5, 5), observations.half(shape, "top")
        for mask, fits in ((small, True), (large, False)):
            seen = Observation(torch.zeros(shape), mask)
            if fits:
                entry.check(seen, entry.approach(), available=1.5e9)
            else:
                with pytest.raises(
                    ValueError, match=r"3 x 1000 x 1500 needs .* GB of memory, of which there are 1.5"
                ):
                    entry.check(seen, entry.approach(), available=1.5e9)

    def test_unknown_names(self):
        with pytest.raises(ValueError, match="unknown model 'resnet'; there are linear-gaussian"):
            catalogue.entry("resnet")
        with pytest.raises(
            ValueError, match=r"'channels-generator' is a bundled prior, and no model; .*river-channels"
        ):
            catalogue.entry("channels-generator")
        with pytest.raises(ValueError, match="gaussian-process is made for each image"):
            MODELS["gaussian-process"].model()

    def test_one_line_each(self):
        for one in MODELS.values():
            assert isinstance(one, Entry)
            assert one.random
            assert "\n" not in one.random
            assert one.source


class TestMethods:
    @pytest.mark.parametrize("name", METHODS)
    def test_makes_a_method_anew(self, name):
        method = catalogue.method(name)
        assert isinstance(method, Method)
        assert method == catalogue.method(name)

    def test_written_as_python(self):
        for name in METHODS:
            method = catalogue.method(name)
            assert eval(written(method), vars(inference)) == method

    def test_unknown(self):
        with pytest.raises(ValueError, match="unknown method 'metropolis'; there are auto, "):
            catalogue.method("metropolis")


class TestMasks:
    shape = (3, 8, 10)

    @pytest.mark.parametrize(
        ("spec", "expected"),
        WRITTEN_MASKS,
    )
    def test_masks(self, spec, expected):
        assert torch.equal(catalogue.mask(spec, self.shape), expected(self.shape))

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("star:3", "unknown mask 'star:3'; there are box:TOP,LEFT,HEIGHT,WIDTH; "),
            (
                "box",
                r"mask 'box' is not understood; expected box:TOP,LEFT,HEIGHT,WIDTH \(hidden: a rectangle",
            ),
            ("box:1,2", "expected box:TOP"),
            ("strokes:3", "expected strokes:COUNT,WIDTH"),
            ("grid:1,2", "expected grid:FACTOR"),
            ("grid:", "expected grid:FACTOR"),
            ("scatter:lots", "expected scatter:SHARE"),
            ("channels:a", "expected channels:C"),
            ("half:middle", "hide='middle'; expected one of top"),
            ("channels:3", "the image has channels 0..2"),
        ],
    )
    def test_not_understood(self, spec, message):
        with pytest.raises(ValueError, match=message):
            catalogue.mask(spec, self.shape)

    @pytest.mark.parametrize("name", MASKS)
    def test_it_names_what_it_says(self, name):
        """More is hidden, or more is seen, as its first number grows."""
        few = {"box": "0,0,2,2", "half": "top", "strokes": "1,1", "blobs": "1", "scatter": "0.1", "grid": "4"}
        many = {
            "box": "0,0,6,6",
            "half": "top",
            "strokes": "9,3",
            "blobs": "9",
            "scatter": "0.9",
            "grid": "2",
        }
        few, many = few.get(name, "1"), many.get(name, "1,2" if name == "channels" else "3")
        less, more = (int(catalogue.mask(f"{name}:{words}", self.shape).sum()) for words in (few, many))
        if name == "half":
            assert not catalogue.mask("half:top", self.shape)[:, 0].any()
        else:
            assert (more > less) == (MASKS[name].names == "seen")
            assert more != less
