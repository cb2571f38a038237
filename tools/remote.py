"""Takes this checkout to a GPU machine over ssh, runs a job there and brings the results back.

    python tools/remote.py user@host tests bench --wheels .whl --out results
    python tools/remote.py user@host --out results -- python3 -m benchmarks dense --out '$OUT'

What travels: every file that git does not ignore, as it is now, and the wheels. The jobs are those
of tools/gpu_jobs.py; options that it does not know itself are handed on to it. The machine needs
ssh, tar and a Python with torch. Its folder is removed afterwards.
"""

from __future__ import annotations

import argparse
import io
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WHEELS = ".whl"
RESULTS = "results"


class Host:
    """A machine that ssh reaches."""

    def __init__(self, ssh: Sequence[str], name: str) -> None:
        self._command = [*ssh, name]

    def run(self, script: str) -> int:
        """Runs a shell script with our terminal as its own; returns its exit code."""
        return subprocess.run([*self._command, script], check=False).returncode

    def pipe(self, script: str, data: bytes = b"") -> bytes:
        """Runs a shell script on some input and returns its output.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        command = [*self._command, script]
        return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def main(argv: list[str]) -> int:
    own, _, custom = partition(argv, "--")
    arguments, job = parser().parse_known_args(own)
    if bool(job) == bool(custom):
        parser().error("give either jobs of tools/gpu_jobs.py or, after --, a command")
    host = Host(shlex.split(arguments.ssh), arguments.host)
    archive = pack(files_of_git(), arguments.wheels)
    folder = host.pipe("mktemp -d -t deep_gemm.XXXXXX").decode().strip()
    where = shlex.quote(folder)
    try:
        print(f"sending {len(archive) / 2**20:.1f} MiB to {arguments.host}:{folder}", flush=True)
        host.pipe(f"mkdir {where}/{RESULTS} && tar -xzf - -C {where}", archive)
        command = custom or job_command(arguments, job)
        try:
            return host.run(script(folder, command, is_shell=bool(custom)))
        finally:
            unpack(host.pipe(f"tar -czf - -C {where}/{RESULTS} ."), arguments.out)
            print(f"results are in {arguments.out}")
    finally:
        if not arguments.keep:
            host.pipe(f"rm -rf {where}")


def parser() -> argparse.ArgumentParser:
    summary = __doc__.partition("\n")[0] if __doc__ else None
    result = argparse.ArgumentParser(description=summary, allow_abbrev=False)
    result.add_argument("host", help="as ssh takes it")
    result.add_argument("--out", type=Path, required=True, help="folder for the results, here")
    result.add_argument("--wheels", type=Path, help="folder of wheels that the machine lacks")
    result.add_argument("--python", default="python3", help="the interpreter there")
    result.add_argument("--ssh", default="ssh", help="such as 'ssh -p 2222'")
    result.add_argument("--keep", action="store_true", help="leave the folder there")
    return result


def partition(argv: Sequence[str], mark: str) -> tuple[list[str], bool, list[str]]:
    """What stands before the mark, whether there is one, and what stands after it."""
    if mark not in argv:
        return list(argv), False, []
    index = list(argv).index(mark)
    return list(argv[:index]), True, list(argv[index + 1 :])


def job_command(arguments: argparse.Namespace, job: Sequence[str]) -> list[str]:
    command = [arguments.python, "tools/gpu_jobs.py", *job, "--out", RESULTS]
    if arguments.wheels is not None:
        command += ["--wheels", WHEELS]
    return [*command, "--commit", commit()]


def script(folder: str, command: Sequence[str], is_shell: bool) -> str:
    """Runs the command in the folder, with $OUT naming the folder that comes back."""
    text = " ".join(command) if is_shell else shlex.join(command)
    where = shlex.quote(folder)
    return f"cd {where} && export OUT={where}/{RESULTS} && {text}"


def files_of_git() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(filter(None, output.split("\0")))


def pack(names: Sequence[str], wheels: Path | None) -> bytes:
    """A gzipped tar of files of the checkout, those deleted but not committed left out."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in names:
            if (ROOT / name).is_file():
                archive.add(ROOT / name, name)
        for wheel in sorted(wheels.glob("*.whl")) if wheels is not None else ():
            archive.add(wheel, f"{WHEELS}/{wheel.name}")
    return buffer.getvalue()


def unpack(data: bytes, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
        archive.extractall(folder, filter="data")


def commit() -> str:
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return result.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
