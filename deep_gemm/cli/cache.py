"""`python -m deep_gemm cache`: what is in the kernel cache, and how less of it is kept."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from deep_gemm import knobs
from deep_gemm.cli.demo import positive_integer
from deep_gemm.cli.output import print_line, print_table, progress
from deep_gemm.cli.verb import Verb
from deep_gemm.errors import ArgumentError, DeepGemmError
from deep_gemm.jit.bundle import unpack
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.layers import CacheLayers
from deep_gemm.jit.upkeep import Stored, clear, fault_of, prune, stored


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and what that needs. The directories are those of DG_JIT_CACHE_DIR."""
    actions = parser.add_subparsers(metavar="action", required=True)

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=summary, description=summary)

    listing = add("list", "list the kernels of all layers, the one used longest ago first")
    listing.set_defaults(action=list_entries)
    verifying = add("verify", "read every kernel of all layers and compare the checksums")
    verifying.add_argument(
        "--fix", action="store_true", help="remove what is broken, except from read-only layers"
    )
    verifying.set_defaults(action=verify_entries)
    for printing in (listing, verifying):
        printing.add_argument("--json", action="store_true", help="print JSON")
    pruning = add("prune", "remove what was used longest ago from the first directory")
    pruning.add_argument(
        "--max-mb",
        type=positive_integer,
        default=None,
        help="megabytes that may stay; by default DG_JIT_CACHE_MAX_MB",
    )
    pruning.set_defaults(action=prune_entries)
    clearing = add("clear", "remove all that the cache has written to the first directory")
    clearing.set_defaults(action=clear_entries)
    unpacking = add("unpack", "unpack a bundle of kernels into a directory")
    unpacking.add_argument("bundle", type=Path, help="a tar that precompile --bundle has written")
    unpacking.add_argument("directory", type=Path, help="list it in DG_JIT_CACHE_DIR")
    unpacking.set_defaults(action=unpack_bundle)


def run(options: argparse.Namespace) -> int:
    """Does one of the actions.

    Returns:
        0, or 1 if broken kernels are left.
    """
    return int(options.action(options))


VERB = Verb(
    "cache", "list, verify, prune, clear the kernel cache; unpack bundles", add_arguments, run
)


def list_entries(options: argparse.Namespace) -> int:
    """Lists every kernel.

    Returns:
        0.
    """
    found = _all_entries()
    if options.json:
        print(json.dumps([_record(cache, entry) for cache, entry in found], indent=1))
        return 0
    for cache in CacheLayers().all():
        entries = [entry for owner, entry in found if owner.directory == cache.directory]
        _print_head(cache, entries)
        if entries:
            print_table([_row(entry) for entry in entries])
    return 0


def verify_entries(options: argparse.Namespace) -> int:
    """Reads every kernel; says which cannot be used, and removes those if asked to.

    Returns:
        0, or 1 if such kernels are left.
    """
    found = _all_entries()
    with progress(f"reading {len(found)} kernels"):
        faults = [(*pair, fault) for pair in found if (fault := fault_of(*pair))]
    num_left = len(faults)
    if options.fix:
        for cache, entry, _ in faults:
            if not cache.is_read_only:
                with _errors_named(cache):
                    cache.remove(entry.name, entry.digest)
                num_left -= 1
    if options.json:
        print(json.dumps([{**_record(c, e), "fault": text} for c, e, text in faults], indent=1))
        return 1 if num_left else 0
    for cache, entry, text in faults:
        print_line(f"{cache.path_of(entry.name, entry.digest)}: {text}", "bold red")
    text = f"{len(found)} kernel(s) read, {len(faults)} broken, {len(faults) - num_left} removed"
    print_line(text, "bold red" if num_left else "green")
    return 1 if num_left else 0


def prune_entries(options: argparse.Namespace) -> int:
    """Bounds the size of the first directory.

    Returns:
        0.

    Raises:
        ArgumentError: no bound is given.
    """
    max_mb = options.max_mb or knobs.jit_cache_max_mb.get()
    if max_mb is None:
        raise ArgumentError(f"--max-mb must be given where {knobs.jit_cache_max_mb.name} is unset")
    cache = CacheLayers().written
    with _errors_named(cache):
        _print_removed(cache, prune(cache, max_mb * 1_000_000))
    return 0


def clear_entries(_: argparse.Namespace) -> int:
    """Empties the first directory.

    Returns:
        0.
    """
    cache = CacheLayers().written
    with _errors_named(cache):
        _print_removed(cache, clear(cache))
    return 0


def unpack_bundle(options: argparse.Namespace) -> int:
    """Unpacks a bundle.

    Returns:
        0.
    """
    with _errors_named(KernelCache(options.directory)):
        num_kernels = unpack(options.bundle, options.directory)
    print_line(f"{num_kernels} kernel(s) of {options.bundle} are in {options.directory}", "green")
    return 0


@contextmanager
def _errors_named(cache: KernelCache) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DeepGemmError(f"kernel cache {cache.directory}: {error}") from None


def _all_entries() -> list[tuple[KernelCache, Stored]]:
    found = []
    for cache in CacheLayers().all():
        with _errors_named(cache):
            found += [(cache, entry) for entry in stored(cache)]
    return found


def _record(cache: KernelCache, entry: Stored) -> dict[str, object]:
    return {
        "directory": str(cache.directory),
        "read_only": cache.is_read_only,
        "name": entry.name,
        "digest": entry.digest,
        "bytes": entry.num_bytes,
        "used": entry.used,
    }


def _row(entry: Stored) -> tuple[str, ...]:
    used = datetime.fromtimestamp(entry.used).isoformat(" ", "minutes")
    return entry.digest[:12], f"{entry.num_bytes / 1e6:.2f} MB", f"used {used}", entry.name


def _print_head(cache: KernelCache, entries: list[Stored]) -> None:
    use = "read-only layer" if cache.is_read_only else "written"
    num_bytes = sum(entry.num_bytes for entry in entries)
    size = f"{len(entries)} kernel(s), {num_bytes / 1e6:.1f} MB"
    print_line(f"{cache.directory} ({use}): {size}", "bold")


def _print_removed(cache: KernelCache, entries: list[Stored]) -> None:
    num_bytes = sum(entry.num_bytes for entry in entries)
    print_line(f"{cache.directory}: removed {len(entries)} kernel(s), {num_bytes / 1e6:.1f} MB")
