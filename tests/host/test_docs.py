"""The documents name only what there is: files, tests, knobs with their defaults, Python names."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from deep_gemm import knobs
from deep_gemm.knobs import Knob

ROOT = Path(__file__).parents[2]
GUIDES = ["csrc/README.md", *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))]
DOCUMENTS = ["README.md", *GUIDES]

MAX_LINES = 200

FILE_NAME = re.compile(r"(?<![\w./<>~-])[\w.][\w./-]*\.(?:cuh|cu|py|md|jsonl?|toml)\b")
FOLDER = re.compile(r"`([\w.][\w./-]*/)`")
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
TEST_NAME = re.compile(r"`(test_\w+)`")
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL_PYTHON = re.compile(r"python -c '(.*?)'", re.DOTALL)

# Files of the kernel cache, of bundles and of the reader, which lie in no checkout.
NOT_OURS = {"kernel.cu", "manifest.json", "meta.json"}


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def snippets(text: str) -> list[str]:
    """The Python code of a document: blocks of Python, and `python -c` in shell blocks."""
    found = []
    for language, body in CODE_BLOCK.findall(text):
        if language == "python":
            found.append(body)
        elif language == "sh":
            found += SHELL_PYTHON.findall(body)
    return found


def missing_files(document: str, text: str) -> list[str]:
    """File and folder names that lead nowhere, from the root, from csrc/ and from the document."""
    places = (ROOT, ROOT / "csrc", (ROOT / document).parent)
    names = {*FILE_NAME.findall(text), *FOLDER.findall(text)} - NOT_OURS
    missing = [name for name in names if not any((place / name).exists() for place in places)]
    targets = (target for target in LINK.findall(text) if "://" not in target)
    missing += [target for target in targets if not (places[-1] / target).exists()]
    return sorted(missing)


def unknown_imports(code: str) -> list[str]:
    """What a snippet imports from this library in vain."""
    unknown = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deep_gemm"):
            module = importlib.import_module(node.module or "")
            names = (alias.name for alias in node.names)
            unknown += [f"{node.module}.{name}" for name in names if not hasattr(module, name)]
    return unknown


def default_text(knob: Knob[object]) -> str:
    """A default as one would type it."""
    if knob.default is None:
        return "unset"
    if isinstance(knob.default, bool):
        return f"`{int(knob.default)}`"
    if isinstance(knob.default, tuple):
        return f"`{':'.join(map(str, knob.default))}`"
    return f"`{knob.default}`" if str(knob.default) else "empty"


def knob_table() -> str:
    """The table of docs/jit_and_cache.md."""
    rows = [f"| `{knob.name}` | {default_text(knob)} | {knob.doc} |" for knob in knobs.ALL]
    return "\n".join(["| variable | default | what it does |", "| --- | --- | --- |", *rows]) + "\n"


def test_there_are_documents() -> None:
    expected = {"numerics", "hopper", "jit_and_cache", "new_kernel", "measured"}
    assert expected <= {Path(guide).stem for guide in GUIDES}


@pytest.mark.parametrize("document", GUIDES)
def test_a_document_is_short(document: str) -> None:
    assert len(text_of(document).splitlines()) < MAX_LINES


@pytest.mark.parametrize("document", GUIDES)
def test_files_that_are_named_exist(document: str) -> None:
    text = text_of(document)
    assert FILE_NAME.findall(text), "names no file at all: has the pattern gone blind?"
    assert missing_files(document, text) == []


def test_a_file_that_is_not_there_is_found() -> None:
    text = "`pipeline/gone.cuh`, tests/gone.py and `gone/` beside `ptx/`, [x](gone.md), config.cuh"
    expected = ["gone.md", "gone.md", "gone/", "pipeline/gone.cuh", "tests/gone.py"]
    assert missing_files("docs/hopper.md", text) == expected


@pytest.mark.parametrize("document", GUIDES)
def test_tests_that_are_named_exist(document: str) -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert set(TEST_NAME.findall(text_of(document))) <= defined


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_in_a_document_compiles_and_imports_what_there_is(document: str) -> None:
    for code in snippets(text_of(document)):
        compile(code, document, "exec")
        assert unknown_imports(code) == []


def test_snippets_are_found_and_their_imports_checked() -> None:
    text = "```python\nfrom deep_gemm import gone\n```\n\n```sh\npython -c '\nx = 1\n'\n```\n"
    first, second = snippets(text)
    assert (unknown_imports(first), unknown_imports(second)) == (["deep_gemm.gone"], [])
    for document in ("README.md", "docs/machine_code.md", "docs/jit_and_cache.md"):
        assert snippets(text_of(document)), f"no Python was found in {document}"


def test_the_table_of_knobs_is_that_of_the_code() -> None:
    found = "docs/jit_and_cache.md must hold exactly this table:\n\n" + knob_table()
    assert knob_table() in text_of("docs/jit_and_cache.md"), found


def test_all_knobs_are_listed() -> None:
    defined = {value.name for value in vars(knobs).values() if isinstance(value, Knob)}
    assert {knob.name for knob in knobs.ALL} == defined


def test_every_header_has_its_line() -> None:
    headers = {path.relative_to(ROOT / "csrc").as_posix() for path in ROOT.glob("csrc/**/*.cuh")}
    lists = text_of("csrc/README.md") + text_of("docs/mqa_logits.md")
    rows = re.findall(r"^\| `([\w/]+\.cuh)` \|", lists, re.MULTILINE)
    assert sorted(rows) == sorted(headers)
