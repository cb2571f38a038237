"""The cast to FP8 with one scale factor per row and gran_k columns, of x or of SiLU(x) * up."""

from __future__ import annotations

from ctypes import sizeof
from typing import NamedTuple

import torch

from deep_gemm.checks import extent, refuse
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.cast import INPUTS, CastArguments, CastRows, SfFormat, vector_size, word
from deep_gemm.kernels.transpose import strides_of_batch
from deep_gemm.runtime.device import arch_of
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.settings import Settings, usable_sms
from deep_gemm.utils.math import ceil_div

GRANULARITIES = (32, 64, 128)
NUM_THREADS = 256
WARPS = NUM_THREADS // 32

MAX_PIECES = 2**31
"""Pieces of work, which are counted in 32 bits with room for a round of all warps."""


class PerTokenCastConfig(NamedTuple):
    """What is fixed when the kernel is compiled: `PerTokenCastConfig` of per_token_cast.cuh.

    Attributes:
        dtype: of the input.
        gran_k: columns that share a scale factor.
        sf: how scale factors are written.
        rows: which rows are cast.
        multiplies: SiLU(x) * up is cast, not x.
        clamps: x and up are limited first.
    """

    dtype: torch.dtype
    gran_k: int
    sf: SfFormat
    rows: CastRows
    multiplies: bool = False
    clamps: bool = False

    @property
    def rows_at_once(self) -> int:
        """Rows of a piece of work."""
        return 2 if self.multiplies else 4

    @property
    def ctas_per_sm(self) -> int:
        """How many are to fit a multiprocessor: a thread of five may have 48 registers, of six 40,
        which is enough for two rows of a product that nobody has to look for."""
        return 6 if self.multiplies and not self.clamps and self.rows == CastRows.ALL else 5

    @property
    def width(self) -> int:
        """Columns of a piece of work."""
        return 32 * vector_size(self.dtype)

    @property
    def entry(self) -> str:
        """The kernel's name."""
        activation = "silu_mul_" if self.multiplies else ""
        clamped = "clamped_" if self.clamps else ""
        words = (word(self.dtype), str(self.gran_k), self.sf.name.lower(), self.rows.name.lower())
        return f"{clamped}{activation}per_token_cast_{'_'.join(words)}"

    def initialiser(self) -> str:
        """The C++ value."""
        flags = [str(flag).lower() for flag in (self.multiplies, self.clamps)]
        return (
            f"{{.input = deep_gemm::CastInput::{INPUTS[self.dtype]}, .gran_k = {self.gran_k}, "
            f".sf = deep_gemm::SfFormat::{self.sf.value}, "
            f".rows = deep_gemm::CastRows::{self.rows.value}, "
            f".multiplies = {flags[0]}, .clamps = {flags[1]}}}"
        )


def generate_per_token_cast(config: PerTokenCastConfig, arch: str) -> KernelSource:
    """The casting kernel of a configuration."""
    text = f"""\
#include "kernels/per_token_cast.cuh"

constexpr deep_gemm::PerTokenCastConfig kConfig{config.initialiser()};

static_assert(sizeof(deep_gemm::CastArguments) == {sizeof(CastArguments)});
static_assert(kConfig.kThreads == {NUM_THREADS});
static_assert(kConfig.rows_at_once() == {config.rows_at_once});
static_assert(kConfig.width() == {config.width});

extern "C" __global__ void __launch_bounds__({NUM_THREADS}, {config.ctas_per_sm})
    {config.entry}(const __grid_constant__ deep_gemm::CastArguments args) {{
    deep_gemm::per_token_cast<kConfig>(args);
}}
"""
    return KernelSource(config.entry, text, config.entry, arch, config=repr(config))


class PerTokenCast(NamedTuple):
    """The tensors of a cast, all on one device; what is None does not exist.

    Attributes:
        x: [m, n], or [groups, m_max, n] where rows are counted; contiguous columns.
        up: like x, for a product.
        data: FP8 of x's shape, contiguous columns.
        sf: [.., m, ceil(n / gran_k)] FP32, or [.., m, ceil(n / (4 * gran_k))] int32; any strides.
        grouped_layout: int32, unless all rows are cast.
    """

    x: torch.Tensor
    up: torch.Tensor | None
    data: torch.Tensor
    sf: torch.Tensor
    grouped_layout: torch.Tensor | None

    def addresses(self) -> list[int]:
        """What a plan lacks."""
        return [tensor.data_ptr() for tensor in self if tensor is not None]

    def plan(self, config: PerTokenCastConfig, clamp: float, settings: Settings) -> Plan:
        """The launch for tensors of these shapes and strides.

        Args:
            config: of the kernel.
            clamp: the limit; without a meaning if the kernel does not clamp.
            settings: where groups with known ends begin, and the multiprocessors to use.

        Raises:
            ArgumentError: there is too much to do.
        """
        x = self.x
        num_ctas = ceil_div(num_pieces(config, x.shape), WARPS)
        tensors = zip(self._fields, self, strict=True)
        launch = KernelLaunch(
            kernel=build(generate_per_token_cast(config, arch_of(x.device))),
            arguments=self._arguments(settings.mk_alignment, clamp),
            maps=(),
            pointers=tuple((name, extent(t)) for name, t in tensors if t is not None),
            grid=_grid(config, num_ctas, x.device, settings),
            num_threads=NUM_THREADS,
            smem_bytes=0,
            cluster_size=1,
        )
        return make_plan(launch, self.addresses(), x.device)

    def _arguments(self, alignment: int, clamp: float) -> CastArguments:
        x, up, data, sf, layout = self
        arguments = CastArguments.allocate()
        arguments.x_stride_batch, arguments.x_stride_row, _ = strides_of_batch(x)
        if up is not None:
            arguments.up_stride_batch, arguments.up_stride_row, _ = strides_of_batch(up)
        arguments.data_stride_batch, arguments.data_stride_row, _ = strides_of_batch(data)
        sf_strides = strides_of_batch(sf)
        arguments.sf_stride_batch, arguments.sf_stride_row, arguments.sf_stride_column = sf_strides
        arguments.rows, arguments.columns = x.shape[-2:]
        arguments.num_groups = 0 if layout is None else layout.shape[0]
        arguments.alignment, arguments.clamp = alignment, clamp
        return arguments


def _grid(
    config: PerTokenCastConfig, num_ctas: int, device: torch.device, settings: Settings
) -> int:
    """CTAs of a launch: no more than find room, each of which then has several pieces of work.

    But where all rows are cast, and all multiprocessors may be taken, one for every eight pieces:
    CTAs that begin while others end keep HBM busier than those that go round (85 % against 80 %).
    """
    if config.rows == CastRows.ALL and not settings.limits_sms:
        return num_ctas
    return min(num_ctas, config.ctas_per_sm * usable_sms(device, settings))


def num_pieces(config: PerTokenCastConfig, shape: torch.Size) -> int:
    """Pieces of work if all rows are cast.

    Raises:
        ArgumentError: more than there are numbers for.
    """
    rows, columns = shape[-2:]
    granularity = 4 * config.gran_k if config.sf == SfFormat.PACKED_UE8M0 else config.gran_k
    width = ceil_div(ceil_div(columns, granularity) * granularity, config.width)
    pieces = shape[:-2].numel() * ceil_div(rows, config.rows_at_once) * width
    if pieces > MAX_PIECES:
        refuse("x", f"must have at most 2**31 pieces of {config.rows_at_once} rows", tuple(shape))
    return pieces
