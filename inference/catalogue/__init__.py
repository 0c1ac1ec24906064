"""The catalogue: every model, method, mask and bundled prior by one name, with what a person needs to choose it.

A name means one model with one method and number of draws, whether it comes to the command line, to ``compare`` or
to Python: ``build("gan", observation)``. The folder of a prior of one's own goes wherever a name goes.
"""

from posterior_inpainting.inference.catalogue.approach import Approach
from posterior_inpainting.inference.catalogue.entry import Entry, Given, written
from posterior_inpainting.inference.catalogue.instruments import INSTRUMENTS, InstrumentEntry, instrument
from posterior_inpainting.inference.catalogue.masks import MASKS, MaskEntry, mask
from posterior_inpainting.inference.catalogue.methods import METHODS, MethodEntry, method
from posterior_inpainting.inference.catalogue.models import (
    APPROACHES,
    MODELS,
    approach,
    build,
    check_shape_of,
    entry,
    fitting,
)
from posterior_inpainting.inference.catalogue.priors import PRIORS, PriorEntry

__all__ = [
    "APPROACHES",
    "INSTRUMENTS",
    "MASKS",
    "METHODS",
    "MODELS",
    "PRIORS",
    "Approach",
    "Entry",
    "Given",
    "InstrumentEntry",
    "MaskEntry",
    "MethodEntry",
    "PriorEntry",
    "approach",
    "build",
    "check_shape_of",
    "entry",
    "fitting",
    "instrument",
    "mask",
    "method",
    "written",
]
