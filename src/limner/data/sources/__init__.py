"""Data sources. Importing this package imports all its modules, which register their sources.

No module imports torch before a set is loaded.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
