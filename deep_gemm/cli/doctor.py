"""`python -m deep_gemm doctor`: what is here, what is missing, and how to mend it."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from rich.text import Text

from deep_gemm.cli import probes
from deep_gemm.cli.output import print_line, print_table, progress
from deep_gemm.cli.probes import Finding
from deep_gemm.cli.verb import Verb
from deep_gemm.errors import DeepGemmError

PROBES: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
    ("Python", probes.python),
    ("torch", probes.torch_build),
    ("NVIDIA driver", probes.nvidia_driver),
    ("GPU", probes.gpus),
    ("compiler", probes.compiler),
    ("other compilers", probes.other_compilers),
    ("headers", probes.headers),
    ("kernel cache", probes.kernel_cache),
)

STYLES = {"ok": "green", "unused": "dim", "warning": "yellow", "missing": "bold red"}

NEEDED_TO_COMPILE = frozenset({"compiler", "headers"})


def run(_: argparse.Namespace) -> int:
    """Looks at everything.

    Returns:
        0 if the main job can run here, else 1.
    """
    findings: list[Finding] = []
    with progress("looking around") as status:
        for subject, probe in PROBES:
            status.update(f"looking at: {subject}")
            findings += examine(subject, probe)
    print_table([_row(finding) for finding in findings])
    text, code = verdict(findings)
    print_line(text, "bold red" if code else "green")
    return code


VERB = Verb("doctor", "say what is here, what is missing and how to mend it", lambda _: None, run)


def examine(subject: str, probe: Callable[[], list[Finding]]) -> list[Finding]:
    """What a probe found. An error of any kind is a finding too: the report has to go on."""
    try:
        return probe()
    except DeepGemmError as error:
        found, _, mend = str(error).partition("; mend it with: ")
    except Exception as error:
        found, mend = f"{type(error).__name__}: {error}", ""
    return [Finding(subject, "missing", found, mend)]


def verdict(findings: list[Finding]) -> tuple[str, int]:
    """The last line of the report, and the exit code."""
    missing = {finding.subject: None for finding in findings if finding.status == "missing"}
    if not missing:
        return "The main job can run here. Try: python -m deep_gemm demo", 0
    text = f"The main job cannot run here: see {', '.join(missing)} above."
    if not NEEDED_TO_COMPILE & missing.keys():
        text += " Compiling and emulating works: python -m deep_gemm demo shows it."
    return text, 1


def _row(finding: Finding) -> tuple[Text, str, str]:
    mend = f"\nmend: {finding.mend}" if finding.mend else ""
    status = Text(finding.status, STYLES[finding.status])
    return status, finding.subject, finding.found + mend
