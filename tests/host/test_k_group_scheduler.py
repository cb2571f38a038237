"""The scheduler of k-grouped products, and the kernel that tells it of the groups, on the host."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.config.gemm_config import BLOCK_K
from deep_gemm.kernels.arguments import KGroupMapsArguments
from tests.host.walks import K_GROUPED, Blocks, Config, Schedulers, arguments, check_columns

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
A_ADDRESS, B_ADDRESS = 1 << 40, 1 << 41

many_examples = settings(max_examples=300)


@pytest.fixture(scope="module")
def schedulers(host_compiler: Callable[..., ctypes.CDLL]) -> Schedulers:
    return Schedulers(host_compiler)


@dataclass(frozen=True)
class GroupMaps:
    """What the kernel before the GEMM makes.

    Attributes:
        k_groups: [groups, 2], of each its first k block and their number.
        maps: [groups, 2, 16], the words of the tensor maps of A and B.
    """

    k_groups: np.ndarray
    maps: np.ndarray


def make_maps(schedulers: Schedulers, m: int, n: int, total_k: int, ks: list[int]) -> GroupMaps:
    sizes = np.array(ks, np.int32)
    made = GroupMaps(
        np.full((len(ks), 2), 0xFFFFFFFF, np.uint32), np.zeros((len(ks), 2, 16), np.uint64)
    )
    args = KGroupMapsArguments.allocate()
    for operand, pattern in enumerate((args.pattern_a, args.pattern_b)):
        pattern.opaque[:] = [100 * operand + word for word in range(16)]
    args.a, args.b, args.m, args.n = A_ADDRESS, B_ADDRESS, m, n
    args.ks = sizes.ctypes.data
    args.group_maps, args.k_groups = made.maps.ctypes.data, made.k_groups.ctypes.data
    args.num_groups, args.total_k = len(ks), total_k
    schedulers.make_group_maps(args)
    return made


def check_maps(made: GroupMaps, m: int, n: int, k_blocks: list[int]) -> None:
    """Each group's map begins where the groups before it end; one of no K stays the pattern."""
    begins = np.cumsum([0, *k_blocks])
    assert (made.k_groups == np.stack([begins[:-1], k_blocks], 1)).all()
    for group, blocks in enumerate(k_blocks):
        for operand, (address, rows) in enumerate(((A_ADDRESS, m), (B_ADDRESS, n))):
            expected = [100 * operand + word for word in range(16)]
            if blocks:
                k = BLOCK_K * blocks
                expected[:3] = [address + rows * BLOCK_K * int(begins[group]), k, k]
            assert made.maps[group, operand].tolist() == expected


# Some groups are empty.
k_blocks_of_groups = st.lists(st.sampled_from([0, 0, 1, 2, 3, 17, 200]), min_size=1, max_size=40)


@many_examples
@given(
    k_blocks=k_blocks_of_groups,
    more_groups=st.sampled_from([0, 0, 0, 31, 150]),
    m=st.integers(1, 5000),
    n=st.integers(1, 5000),
)
def test_maps_of_groups(
    schedulers: Schedulers, k_blocks: list[int], more_groups: int, m: int, n: int
) -> None:
    k_blocks = k_blocks + [1] * more_groups
    total_k = BLOCK_K * sum(k_blocks)
    made = make_maps(schedulers, m, n, total_k, [BLOCK_K * blocks for blocks in k_blocks])
    check_maps(made, m, n, k_blocks)


@many_examples
@given(
    ks=st.lists(
        st.one_of(
            st.integers(-300, 3000),
            st.sampled_from([INT_MIN, -BLOCK_K, 127, 2**30, INT_MAX - 127, INT_MAX]),
        ),
        min_size=1,
        max_size=70,
    ),
    more_groups=st.sampled_from([0, 0, 0, 300]),
    total_k_blocks=st.sampled_from([1, 5, 64, 2**20, 2**24 - 1]),
)
def test_maps_of_sizes_that_make_no_sense(
    schedulers: Schedulers, ks: list[int], more_groups: int, total_k_blocks: int
) -> None:
    """Whole k blocks count, and groups end where the operands do: nothing lies outside. That many
    more groups have 2**32 k blocks together."""
    ks = ks + [INT_MAX] * more_groups
    k_blocks, left = [], total_k_blocks
    for k in ks:
        k_blocks.append(min(max(k, 0) // BLOCK_K, left))
        left -= k_blocks[-1]
    made = make_maps(schedulers, 48, 64, BLOCK_K * total_k_blocks, ks)
    check_maps(made, 48, 64, k_blocks)


def test_maps_of_large_operands(schedulers: Schedulers) -> None:
    """Offsets of more than 2**32 bytes, and as much K as a coordinate reaches."""
    k_blocks = [2**23, 0, 2**23 - 1]
    ks = [BLOCK_K * blocks for blocks in k_blocks]
    made = make_maps(schedulers, 4096, INT_MAX, sum(ks), ks)
    check_maps(made, 4096, INT_MAX, k_blocks)


def check_blocks(config: Config, m: int, n: int, blocks: Blocks, num_groups: int) -> None:
    """Each block of each D once, and outside no more than the clusters hang over."""
    assert not (blocks.m % config.block_m).any()
    row, column = blocks.m // config.block_m, check_columns(config, n, blocks)
    rows, columns = config.cluster_grid(m, n)
    shape = (num_groups, rows * config.cluster_m, columns * config.cluster_n)
    assert (blocks.d_batch < num_groups).all() and (row < shape[1]).all()
    place = np.ravel_multi_index((blocks.d_batch, row, column), shape)
    assert (np.bincount(place, minlength=np.prod(shape)) == 1).all()


@many_examples
@given(
    config=st.sampled_from(K_GROUPED),
    m=st.integers(1, 700),
    n=st.integers(1, 700),
    k_blocks=k_blocks_of_groups,
    band=st.integers(1, 40),
    num_clusters=st.one_of(st.integers(1, 5), st.sampled_from([7, 31, 132])),
    accumulates=st.booleans(),
)
def test_each_block_of_each_group_once(
    schedulers: Schedulers,
    config: Config,
    m: int,
    n: int,
    k_blocks: list[int],
    band: int,
    num_clusters: int,
    accumulates: bool,
) -> None:
    first_k_blocks = np.cumsum([0, *k_blocks[:-1]])
    num_groups = len(k_blocks)
    held = np.stack([first_k_blocks, k_blocks], 1).astype(np.uint32)
    args = arguments(
        *(held, "k_groups"),
        **{"m": m, "n": n, "band": band, "num_groups": num_groups, "accumulates": accumulates},
    )
    ctas = schedulers.walk_all(config, args, num_clusters * config.cluster_size)
    counts = [len(blocks) for blocks in ctas]
    assert max(counts) - min(counts) <= 1, "CTAs share the work evenly"
    blocks = Blocks.together(ctas)
    check_blocks(config, m, n, blocks, num_groups)
    assert (blocks.a_batch == 0).all() and (blocks.b_batch == 0).all()
    assert (blocks.first_k_block == first_k_blocks[blocks.d_batch]).all()
    assert (blocks.num_k_blocks == np.array(k_blocks)[blocks.d_batch]).all()
    # Of a group without K, D becomes zero; adding that would be a waste.
    is_idle = accumulates & (blocks.num_k_blocks == 0)
    assert (blocks.valid_rows == config.block_m).all()
    assert (blocks.stored_rows == np.where(is_idle, 0, config.block_m)).all()


@pytest.mark.parametrize("is_tall", [True, False])
def test_blocks_up_to_the_largest_coordinate(schedulers: Schedulers, is_tall: bool) -> None:
    """One CTA per block, so that a single walk reaches any of them."""
    config = next(c for c in K_GROUPED if c.block_m == (256 if is_tall else 128))
    size, block = INT_MAX, config.block_m if is_tall else config.block_n
    m, n = (size, 16) if is_tall else (16, size)
    k_groups = np.array([[0, 2**23], [2**23, 2**23 - 1]], np.uint32)
    num_blocks = -(-size // block)
    args = arguments(
        *(k_groups, "k_groups"),
        **{"m": m, "n": n, "band": 5, "num_groups": 2},
    )
    for group, (first, k_blocks) in enumerate(k_groups.tolist()):
        for place in (0, 1, num_blocks // 2, num_blocks - 1):
            cta = group * num_blocks + place
            table = schedulers.walk(config, args, cta, 2 * num_blocks).table()
            at = [block * place, 0] if is_tall else [0, block * place]
            assert table.tolist() == [
                [*at, 0, 0, group, first, k_blocks, config.block_m, config.block_m, 1]
            ]
    assert len(schedulers.walk(config, args, 2 * num_blocks, 2 * num_blocks)) == 0
