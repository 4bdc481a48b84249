"""Where images come from: each module registers its sources by being imported.

Importing this package imports them all, and none of them imports torch before a set is loaded.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
