"""Names of a package that bring their module when they are first used.

An engine's worker waits for its imports, and needs one or two of our kernels: all modules together
take about 1.7 times as long as those of one kernel (docs/kernel_cache.md).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module


def late_names(
    package: str, names: Mapping[str, Sequence[str]], modules: Sequence[str] = ()
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package.

    Args:
        package: its full name.
        names: those of each of its modules that it has too.
        modules: those that it has themselves.
    """
    module_of = {name: module for module in names for name in names[module]}

    def find(name: str) -> object:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(f"{package}.{module_of[name]}"), name)
        # From now on it is found without a search.
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of, *modules})

    return find, list_names
