"""A compiler for tests of what lies around one: it counts its compiles, in all processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from deep_gemm.jit.compiler import Compiler, Translation
from deep_gemm.jit.source import KernelSource

CUBIN = b"\x7fELF" + bytes(range(256)) * 64


def kernel_source(entry: str) -> KernelSource:
    return KernelSource(f"kernel_{entry}", f"void {entry}();\n", entry, "90a")


class CountingCompiler(Compiler):
    """Logs each compile as one line of a file, which forked processes share.

    Attributes:
        failure: what it answers; empty if it succeeds.
        meeting: each compile waits here for others.
        seconds: that a compile takes.
    """

    name, version, fingerprint = "FAKE", "1.0", "f"

    def __init__(self, log: Path) -> None:
        self.log = log
        self.failure = ""
        self.meeting: threading.Barrier | None = None
        self.seconds = 0.0

    def options(self, arch: str) -> tuple[str, ...]:
        return (arch,)

    def translate(self, source: KernelSource, headers: Mapping[str, bytes]) -> Translation:
        descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{source.entry}\n".encode())
        os.close(descriptor)
        if self.meeting is not None:
            self.meeting.wait()
        time.sleep(self.seconds)
        log = f"Compiling entry function '{source.entry}' for\nUsed 8 registers, used 0 barriers\n"
        return Translation(CUBIN, ".entry", log, self.failure, 0.5)

    def compiled(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []
