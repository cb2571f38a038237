"""Engines and trainers as far as they call us: the same names, argument orders, keywords, layouts
of scale factors and garbage in padding, one scenario for each kind of call.

What they do with BF16, indexers and Mega MoE is not here: those names are absent so far, as
tests/host/test_probes_of_engines.py shows.
"""

from __future__ import annotations

from tests.fake_engines import serving, sglang, training, vllm
from tests.fake_engines.site import SCENARIOS, Scenario, Site

__all__ = ["SCENARIOS", "Scenario", "Site", "serving", "sglang", "training", "vllm"]
