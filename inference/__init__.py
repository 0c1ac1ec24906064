"""One inference layer for every model: draws, their diagnostics, scores and pictures.

Names are imported when they are first used, from where ``__init__.pyi`` says: a command line that only helps, or a
script that only reads, does not wait for everything.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
