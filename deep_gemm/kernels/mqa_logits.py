"""MQA logits: from tensors to a plan, for keys in one matrix and for keys in pages."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from deep_gemm.checks import extent
from deep_gemm.config.mqa_problem import MqaProblem
from deep_gemm.jit.build import build
from deep_gemm.kernels.arguments import L2Policy
from deep_gemm.kernels.mqa_arguments import MqaArguments
from deep_gemm.kernels.mqa_config import (
    FP32_BYTES,
    NUM_THREADS,
    TILE_KEYS,
    MqaConfig,
    generate_mqa_logits,
)
from deep_gemm.record import record
from deep_gemm.runtime.device import arch_of
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.settings import Settings, usable_sms
from deep_gemm.tensor_map import UINT8, BoxMap, matrix_map
from deep_gemm.utils.math import align, ceil_div

Maps = tuple[tuple[str, BoxMap], ...]


class MatrixLogits(NamedTuple):
    """The tensors of a call with keys in one matrix.

    Attributes:
        q: [tokens, heads, head_dim] float8_e4m3fn, heads and columns adjacent.
        keys: [keys, head_dim] float8_e4m3fn, columns adjacent.
        key_sf: [keys] FP32, contiguous.
        weights: [tokens, heads] FP32, heads adjacent.
        key_starts, key_ends: [tokens] int32: the keys that a token sees.
        logits: [tokens, width] FP32 or BF16, rows at multiples of 16 bytes.
    """

    q: torch.Tensor
    keys: torch.Tensor
    key_sf: torch.Tensor
    weights: torch.Tensor
    key_starts: torch.Tensor
    key_ends: torch.Tensor
    logits: torch.Tensor

    def addresses(self) -> list[int]:
        """What a plan lacks."""
        tensors = (self.q, self.keys, self.key_sf, self.weights, self.logits)
        return [tensor.data_ptr() for tensor in (*tensors, self.key_starts, self.key_ends)]

    def plan(self, is_compressed: bool, cleans: bool, settings: Settings) -> Plan:
        """The launch for tensors of these shapes and strides.

        Args:
            is_compressed: column 0 is the first key that a token sees.
            cleans: what a token does not see becomes -inf.
            settings: the multiprocessors to use.
        """
        q, keys, key_sf, weights, starts, ends, logits = self
        tokens, heads, head_dim = q.shape
        config = _config(q, logits, MqaProblem(heads, head_dim))
        arguments = _arguments(q, weights, logits, cleans)
        arguments.num_keys, arguments.is_compressed = keys.shape[0], is_compressed
        key_strides = keys.shape[0] * row_stride(keys), row_stride(keys)
        maps = (
            ("tensor_map_q", _query_map(q, config)),
            (
                "tensor_map_keys",
                matrix_map(UINT8, (1, *keys.shape), key_strides, (TILE_KEYS, head_dim)),
            ),
        )
        pointers = _extents(
            key_sf=key_sf, weights=weights, logits=logits, key_starts=starts, key_ends=ends
        )
        grid = usable_sms(q.device, settings)
        # Every token may have a part of a tile of its own.
        tiles = ceil_div(tokens, config.num_tokens) * (ceil_div(keys.shape[0], TILE_KEYS) + 1)
        launch = _launch(config, arguments, maps, pointers, min(grid, tiles), settings, q.device)
        return make_plan(launch, self.addresses(), q.device)


class PagedLogits(NamedTuple):
    """The tensors of a call with keys in the pages of a cache.

    Attributes:
        q: [sequences, next_n, heads, head_dim] float8_e4m3fn; tokens at one stride, heads and
            columns adjacent.
        cache: [pages, page_keys, 1, head_dim + 4] uint8: of each page its keys' values, then their
            scale factors, adjacent; pages at multiples of 16 bytes.
        weights: [sequences * next_n, heads] FP32, heads adjacent.
        context_lens: [sequences] or [sequences, next_n] int32, contiguous.
        block_table: [sequences, pages of a sequence] int32, rows contiguous.
        schedule: [CTAs + 1, 2] int32, contiguous.
        logits: [sequences * next_n, width] FP32 or BF16, rows at multiples of 16 bytes.
    """

    q: torch.Tensor
    cache: torch.Tensor
    weights: torch.Tensor
    context_lens: torch.Tensor
    block_table: torch.Tensor
    schedule: torch.Tensor
    logits: torch.Tensor

    def addresses(self) -> list[int]:
        """What a plan lacks."""
        cache = self.cache.data_ptr()
        page_keys, head_dim = self.cache.shape[1], self.q.shape[3]
        others = (self.weights, self.logits, self.context_lens, self.block_table, self.schedule)
        maps = (self.q.data_ptr(), cache, cache + page_keys * head_dim)
        return [*maps, *(tensor.data_ptr() for tensor in others)]

    def plan(self, cleans: bool, settings: Settings) -> Plan:
        """The launch for tensors of these shapes and strides.

        Args:
            cleans: what a token does not see becomes -inf.
            settings: of the call.
        """
        q, cache, weights, lens, table, schedule, logits = self
        sequences, next_n, heads, head_dim = q.shape
        page_keys = cache.shape[1]
        config = _config(q, logits, MqaProblem(heads, head_dim, page_keys, next_n))
        tokens = q.flatten(0, 1)
        arguments = _arguments(tokens, weights, logits, cleans)
        arguments.next_n, arguments.lens_per_sequence = next_n, lens.numel() // sequences
        arguments.num_keys = table.shape[1] * page_keys
        arguments.table_stride = table.stride(0)
        # Hardly anybody asks for a page again.
        arguments.policy_keys = L2Policy.EVICT_FIRST
        page_bytes = page_keys * (head_dim + FP32_BYTES)
        page_stride = cache.stride(0) if cache.shape[0] > 1 else page_bytes
        arguments.page_stride = page_stride
        shape, box = (cache.shape[0], page_keys, head_dim), (page_keys, head_dim)
        maps = (
            ("tensor_map_q", _query_map(tokens, config)),
            ("tensor_map_keys", matrix_map(UINT8, shape, (page_stride, head_dim), box)),
        )
        others = _extents(
            weights=weights,
            logits=logits,
            context_lens=lens,
            block_table=table,
            schedule=schedule,
        )
        key_sf = extent(cache) - page_keys * head_dim
        pointers = (("key_sf", key_sf), *others)
        grid = schedule.shape[0] - 1
        launch = _launch(config, arguments, maps, pointers, grid, settings, q.device)
        return make_plan(launch, self.addresses(), q.device)


def _config(q: torch.Tensor, logits: torch.Tensor, sizes: MqaProblem) -> MqaConfig:
    """The configuration for the sizes of a call, which is recorded if a knob asks for it."""
    problem = replace(sizes, logits_bytes=logits.element_size(), arch=arch_of(q.device))
    record(problem)
    return MqaConfig.of(problem)


def row_stride(matrix: torch.Tensor) -> int:
    """Elements from row to row; where there is but one, a stride that TMA takes."""
    return matrix.stride(0) if matrix.shape[0] > 1 else align(matrix.stride(0), 16)


def _query_map(q: torch.Tensor, config: MqaConfig) -> BoxMap:
    """The map of q [tokens, heads, head_dim]. SM90's box interleaves tokens by pairs of heads."""
    tokens, heads, head_dim = q.shape
    together = heads if config.is_sm100 else 2
    return BoxMap(
        UINT8,
        dims=(head_dim, together, tokens, heads // together),
        strides=(
            head_dim,
            q.stride(0) if tokens > 1 else heads * head_dim,
            together * head_dim,
        ),
        box=(head_dim, together, config.box_tokens, heads // together),
        swizzle_bytes=head_dim,
    )


def _arguments(
    q: torch.Tensor, weights: torch.Tensor, logits: torch.Tensor, cleans: bool
) -> MqaArguments:
    arguments = MqaArguments.allocate()
    arguments.weights_stride, arguments.logits_stride = weights.stride(0), logits.stride(0)
    arguments.num_tokens, arguments.width = logits.shape
    arguments.cleans = cleans
    return arguments


def _extents(**tensors: torch.Tensor) -> tuple[tuple[str, int], ...]:
    return tuple((name, extent(tensor)) for name, tensor in tensors.items())


def _launch(
    config: MqaConfig,
    arguments: MqaArguments,
    maps: Maps,
    pointers: tuple[tuple[str, int], ...],
    grid: int,
    settings: Settings,
    device: torch.device,
) -> KernelLaunch:
    return KernelLaunch(
        kernel=build(generate_mqa_logits(config, arch_of(device))),
        arguments=arguments,
        maps=maps,
        pointers=pointers,
        grid=grid,
        num_threads=NUM_THREADS,
        smem_bytes=config.smem_bytes,
        cluster_size=1,
        pdl=settings.pdl,
    )
