"""The examples of the documents do what they say, in the emulator."""

from __future__ import annotations

import pytest

from tests.grouped_calls import mk_alignment
from tests.host.test_docs import snippets, text_of

DOCUMENT = "docs/grouped.md"
EXAMPLES = snippets(text_of(DOCUMENT))


@pytest.mark.filterwarnings("ignore:CPU tensors")
@pytest.mark.parametrize("example", EXAMPLES, ids=["contiguous", "masked", "k_grouped"])
def test_an_example_runs(example: str) -> None:
    with mk_alignment(128):
        exec(compile(example, DOCUMENT, "exec"), {})


@pytest.mark.filterwarnings("ignore:CPU tensors")
@pytest.mark.parametrize(
    "example", snippets(text_of("docs/scale_factors.md")), ids=["layouts", "requantised"]
)
def test_an_example_of_scale_factors_runs(example: str) -> None:
    exec(compile(example, "docs/scale_factors.md", "exec"), {})
