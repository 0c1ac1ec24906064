"""Every approach on the same images behind the same masks: one data set, one table, one figure."""

from posterior_inpainting.inference.catalogue import APPROACHES, Approach
from posterior_inpainting.inference.comparison.compare import compare
from posterior_inpainting.inference.comparison.figures import figures
from posterior_inpainting.inference.comparison.fillings import FILLINGS, Filling
from posterior_inpainting.inference.comparison.tables_and_sheets import markdown, sheet, table

__all__ = [
    "APPROACHES",
    "FILLINGS",
    "Approach",
    "Filling",
    "compare",
    "figures",
    "markdown",
    "sheet",
    "table",
]
