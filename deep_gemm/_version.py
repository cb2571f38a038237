"""The version, said once: the build reads it from here."""

from __future__ import annotations

__version__ = "3.0.0.dev0"
