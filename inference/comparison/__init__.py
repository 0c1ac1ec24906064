"""Every approach on the same images behind the same masks: one data set, one table, one figure."""

from posterior_inpainting.inference.comparison.approach import Approach
from posterior_inpainting.inference.comparison.compare import compare
from posterior_inpainting.inference.comparison.named import APPROACHES, approach_named
from posterior_inpainting.inference.comparison.tables_and_sheets import markdown, sheet, table

__all__ = ["APPROACHES", "Approach", "approach_named", "compare", "markdown", "sheet", "table"]
