"""The schedulers of m-grouped products, run on the host by a warp of 32 lanes.

For any layout, sensible or not: each row that a group has, and each row of padding that is to
become zero, comes once per column of blocks, with the right B, and no other row comes at all.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.kernels.arguments import GroupedLayout
from tests.host.walks import M_GROUPED, Blocks, Config, Schedulers, arguments, check_columns

INT_MIN, INT_MAX = -(2**31), 2**31 - 1
NOTHING, PADDING, PRODUCT = 0, 1, 2

many_examples = settings(max_examples=400)
configs = st.sampled_from(M_GROUPED)
alignments = st.sampled_from([1, 1, 16, 48, 64, 128, 144, 240])


@dataclass(frozen=True)
class Rows:
    """Rows of D that one group has: `product` of them from `first` on, and then padding."""

    group: int
    first: int
    product: int
    stored: int


@dataclass(frozen=True)
class Launch:
    """What does not depend on the layout: sizes, block order and grid."""

    config: Config
    n: int
    k: int
    band: int
    num_clusters: int

    @property
    def num_k_blocks(self) -> int:
        return -(-self.k // 128)


launches = st.builds(
    Launch,
    configs,
    n=st.integers(1, 700),
    k=st.integers(1, 1000),
    band=st.integers(1, 40),
    num_clusters=st.one_of(st.integers(1, 5), st.sampled_from([7, 13, 31])),
)


@pytest.fixture(scope="module")
def schedulers(host_compiler: Callable[..., ctypes.CDLL]) -> Schedulers:
    return Schedulers(host_compiler)


def walk(
    schedulers: Schedulers,
    launch: Launch,
    layout: GroupedLayout,
    values: list[int],
    m: int,
    num_groups: int,
    alignment: int = 1,
    clears: bool = True,
) -> Blocks:
    """The blocks of all CTAs, after what holds for each of them alone."""
    held = np.array(values, np.int32)
    args = arguments(
        *(held, "grouped_layout"),
        **{"m": m, "n": launch.n, "k": launch.k, "band": launch.band, "num_groups": num_groups},
        **{"layout": layout, "alignment": alignment, "clears_padding": clears},
    )
    num_ctas = launch.num_clusters * launch.config.cluster_size
    ctas = schedulers.walk_all(launch.config, args, num_ctas)
    if layout != GroupedLayout.ROW_IDS:
        counts = [len(blocks) for blocks in ctas]
        assert max(counts) - min(counts) <= 1, "CTAs share the work evenly"
    for first in range(0, num_ctas, launch.config.cluster_size):
        cluster = ctas[first : first + launch.config.cluster_size]
        for blocks in cluster:
            check_each(launch, blocks, cluster)
    return Blocks.together(ctas)


def check_each(launch: Launch, blocks: Blocks, cluster: list[Blocks]) -> None:
    """No CTA of a cluster stores more than a block is high, one of them always something, and all
    multiply together, only where one must."""
    assert (blocks.valid_rows <= blocks.stored_rows).all()
    assert (blocks.stored_rows <= launch.config.block_m).all()
    assert np.any([cta.stored_rows > 0 for cta in cluster], axis=0).all()
    multiplies = np.any([cta.valid_rows > 0 for cta in cluster], axis=0)
    assert (blocks.num_k_blocks == np.where(multiplies, launch.num_k_blocks, 0)).all()
    assert (blocks.first_k_block == 0).all()


def rows_of(blocks: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every row that is stored: its block, its place in D, and whether it holds a product."""
    owner = np.repeat(np.arange(len(blocks)), blocks.stored_rows)
    ends = np.cumsum(blocks.stored_rows)
    in_block = np.arange(len(owner)) - (ends - blocks.stored_rows)[owner]
    return owner, blocks.m[owner] + in_block, in_block < blocks.valid_rows[owner]


def check_once(
    launch: Launch, blocks: Blocks, place: np.ndarray, wanted: np.ndarray, got: np.ndarray
) -> None:
    """Each place that is wanted at all comes once per column of blocks, as what it should be.

    Args:
        launch: sizes.
        blocks: all of them.
        place: of each row that is stored.
        wanted: NOTHING, PADDING or PRODUCT of each place.
        got: PADDING or PRODUCT of each row that is stored.
    """
    column = check_columns(launch.config, launch.n, blocks)[rows_of(blocks)[0]]
    assert (got == wanted[place]).all()
    num_columns = -(-launch.n // launch.config.block_n)
    inside = column < num_columns
    times = np.bincount(
        place[inside] * num_columns + column[inside], minlength=len(wanted) * num_columns
    )
    assert (times.reshape(-1, num_columns) == (wanted != NOTHING)[:, None]).all()


def check_groups(
    launch: Launch, blocks: Blocks, expected: list[Rows], has_own_matrix: bool
) -> None:
    """Groups may overlap where the layout makes no sense, so each has places of its own here."""
    stored = np.zeros(max((rows.group for rows in expected), default=0) + 1, np.int64)
    first, product = stored.copy(), stored.copy()
    for rows in expected:
        first[rows.group], product[rows.group], stored[rows.group] = (
            *(rows.first, rows.product),
            rows.stored,
        )
    owner, row, holds_product = rows_of(blocks)
    group = blocks.b_batch[owner]
    assert (group < len(stored)).all()
    in_group = row - first[group]
    assert ((in_group >= 0) & (in_group < stored[group])).all()
    base = np.cumsum(stored) - stored
    of_place = np.repeat(np.arange(len(stored)), stored)
    is_product = np.arange(len(of_place)) - base[of_place] < product[of_place]
    wanted, got = (np.where(which, PRODUCT, PADDING) for which in (is_product, holds_product))
    check_once(launch, blocks, base[group] + in_group, wanted, got)
    matrix = blocks.b_batch if has_own_matrix else 0
    assert (blocks.a_batch == matrix).all() and (blocks.d_batch == matrix).all()


# Row ids.

runs_of_ids = st.lists(st.tuples(st.integers(-4, 9), st.integers(0, 300)), max_size=12)
odd_ids = st.sampled_from([-1, -2, INT_MIN, INT_MAX, 1024])


@many_examples
@given(
    launch=launches,
    runs=runs_of_ids,
    odd_id=odd_ids,
    num_groups=st.sampled_from([1, 3, 8, 1024]),
    alignment=alignments,
)
def test_row_ids(
    schedulers: Schedulers,
    launch: Launch,
    runs: list[tuple[int, int]],
    odd_id: int,
    num_groups: int,
    alignment: int,
) -> None:
    """Ids that are no group's stand anywhere: before, between, behind and inside of groups."""
    ids: list[int] = []
    for group, length in runs:
        ids += [group if group >= 0 else odd_id] * length
        ids += [-1] * (-len(ids) % alignment)
    m = len(ids)
    if m == 0:
        ids, m = [odd_id], 1
    blocks = walk(schedulers, launch, GroupedLayout.ROW_IDS, ids, m, num_groups)
    owner, row, holds_product = rows_of(blocks)
    assert (row < m).all()
    values = np.array(ids)
    wanted = np.where((values >= 0) & (values < num_groups), PRODUCT, PADDING)
    got = np.where(holds_product, PRODUCT, PADDING)
    assert (blocks.b_batch[owner] == values[row])[holds_product].all()
    assert (blocks.b_batch < num_groups).all()
    assert (blocks.a_batch == 0).all() and (blocks.d_batch == 0).all()
    check_once(launch, blocks, row, wanted, got)


# Row ends.


def rows_between_ends(ends: list[int], alignment: int, m: int, clears: bool) -> list[Rows]:
    """What csrc/kernels/arguments.cuh says of kRowEnds, in numbers that do not overflow."""
    rows, before = [], 0
    for group, number in enumerate(ends):
        first = min(-(-before // alignment) * alignment, m)
        end = min(max(number, first), m)
        stored = min(-(-end // alignment) * alignment, m) if clears else end
        rows.append(Rows(group, first, end - first, stored - first))
        before = min(max(number, 0), m)
    return rows


# Most groups are empty: numbers of rows of those that are not, by group.
group_sizes = st.dictionaries(st.integers(0, 1023), st.integers(1, 400), max_size=8)
numbers_of_groups = st.one_of(st.integers(1, 70), st.sampled_from([32, 64, 255, 1024]))


@many_examples
@given(
    launch=launches,
    num_groups=numbers_of_groups,
    sizes=group_sizes,
    alignment=alignments,
    clears=st.booleans(),
    behind=st.integers(0, 50),
    is_cut=st.booleans(),
)
def test_row_ends(
    schedulers: Schedulers,
    launch: Launch,
    num_groups: int,
    sizes: dict[int, int],
    alignment: int,
    clears: bool,
    behind: int,
    is_cut: bool,
) -> None:
    """Rows behind the last group are nobody's; its padding may be cut off by the end of D."""
    expected, ends, start, end = [], [], 0, 0
    for group in range(num_groups):
        end = start + sizes.get(group, 0)
        ends.append(end)
        start = -(-end // alignment) * alignment
    m = max(1, end if is_cut else start + behind)
    start = 0
    for group, end in enumerate(ends):
        aligned = min(-(-end // alignment) * alignment, m)
        expected.append(Rows(group, start, end - start, (aligned if clears else end) - start))
        start = aligned
    assert expected == rows_between_ends(ends, alignment, m, clears)
    layout = GroupedLayout.ROW_ENDS
    blocks = walk(schedulers, launch, layout, ends, m, num_groups, alignment, clears)
    check_groups(launch, blocks, expected, has_own_matrix=False)


odd_numbers = st.one_of(
    st.integers(-3, 500),
    st.sampled_from([INT_MIN, -1, 2**30, INT_MAX - 127, INT_MAX - 15, INT_MAX]),
)


@many_examples
@given(
    launch=launches,
    ends=st.lists(odd_numbers, min_size=1, max_size=40),
    alignment=alignments,
    m=st.integers(1, 400),
    clears=st.booleans(),
)
def test_row_ends_that_make_no_sense(
    schedulers: Schedulers,
    launch: Launch,
    ends: list[int],
    alignment: int,
    m: int,
    clears: bool,
) -> None:
    """They are clamped: an end before its group's beginning, one behind the last row."""
    expected = rows_between_ends(ends, alignment, m, clears)
    assert all(rows.first + rows.stored <= m for rows in expected)
    layout = GroupedLayout.ROW_ENDS
    blocks = walk(schedulers, launch, layout, ends, m, len(ends), alignment, clears)
    check_groups(launch, blocks, expected, has_own_matrix=False)


# Row counts.


@many_examples
@given(launch=launches, num_groups=numbers_of_groups, sizes=group_sizes, m=st.integers(1, 400))
def test_row_counts(
    schedulers: Schedulers, launch: Launch, num_groups: int, sizes: dict[int, int], m: int
) -> None:
    counts = [sizes.get(group, 0) for group in range(num_groups)]
    blocks = walk(schedulers, launch, GroupedLayout.ROW_COUNTS, counts, m, num_groups)
    rows = [min(count, m) for count in counts]
    expected = [Rows(group, 0, number, number) for group, number in enumerate(rows)]
    check_groups(launch, blocks, expected, has_own_matrix=True)


@many_examples
@given(
    launch=launches,
    counts=st.lists(odd_numbers, min_size=1, max_size=40),
    m=st.integers(1, 200),
)
def test_row_counts_that_make_no_sense(
    schedulers: Schedulers, launch: Launch, counts: list[int], m: int
) -> None:
    """Less than 0 is 0, more than there are is all."""
    blocks = walk(schedulers, launch, GroupedLayout.ROW_COUNTS, counts, m, len(counts))
    rows = [min(max(count, 0), m) for count in counts]
    expected = [Rows(group, 0, number, number) for group, number in enumerate(rows)]
    check_groups(launch, blocks, expected, has_own_matrix=True)


# As many rows as D can have. One CTA per block, so that a single walk reaches any of them.

TALL = next(config for config in M_GROUPED if config.block_m == 256 and config.cluster_size == 1)
NUM_TILES = -(-INT_MAX // 256)


@pytest.mark.parametrize("alignment", [1, 128])
def test_row_ends_near_the_largest_coordinate(schedulers: Schedulers, alignment: int) -> None:
    ends = np.array([INT_MAX - 1000, INT_MAX - 1000, INT_MAX - 5], np.int32)
    expected = rows_between_ends(ends.tolist(), alignment, INT_MAX, True)
    args = arguments(
        *(ends, "grouped_layout"),
        **{"m": INT_MAX, "n": 96, "k": 128, "band": 7, "num_groups": 3},
        **{"layout": GroupedLayout.ROW_ENDS, "alignment": alignment, "clears_padding": True},
    )
    tiles = [-(-rows.stored // 256) for rows in expected]
    for group, rows in enumerate(expected):
        for tile in {0, tiles[group] // 2, tiles[group] - 1} - {tiles[group], -1}:
            cta = sum(tiles[:group]) + tile
            blocks = schedulers.walk(TALL, args, cta, sum(tiles))
            assert blocks.b_batch.tolist() == [group]
            assert blocks.m.tolist() == [rows.first + 256 * tile]
            assert blocks.stored_rows.tolist() == [min(256, rows.stored - 256 * tile)]
            assert blocks.valid_rows.tolist() == [min(256, max(rows.product - 256 * tile, 0))]
    assert len(schedulers.walk(TALL, args, sum(tiles), sum(tiles))) == 0


def test_row_counts_up_to_the_largest_coordinate(schedulers: Schedulers) -> None:
    counts = np.array([INT_MAX, INT_MIN, INT_MAX], np.int32)
    args = arguments(
        *(counts, "grouped_layout"),
        **{"m": INT_MAX, "n": 96, "k": 128, "band": 1, "num_groups": 3},
        layout=GroupedLayout.ROW_COUNTS,
    )
    for group in (0, 2):
        for tile in (0, 1, NUM_TILES - 1):
            cta = (group > 0) * NUM_TILES + tile
            blocks = schedulers.walk(TALL, args, cta, 2 * NUM_TILES)
            last = tile == NUM_TILES - 1
            assert blocks.table().tolist() == [
                [256 * tile, 0, group, group, group, 0, 1, *[255 if last else 256] * 2, 1]
            ]
    assert len(schedulers.walk(TALL, args, 2 * NUM_TILES, 2 * NUM_TILES)) == 0


def test_row_ids_up_to_the_largest_coordinate(schedulers: Schedulers) -> None:
    """Eight gigabytes of ids, of which only pages that are touched are there."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    ids = np.frombuffer(mmap.mmap(-1, 4 * 2**31, flags=flags), np.int32)[:INT_MAX]
    ids[-100:] = 1
    ids[-30:] = -1
    args = arguments(
        *(ids, "grouped_layout"),
        **{"m": INT_MAX, "n": 96, "k": 128, "band": NUM_TILES, "num_groups": 2},
        layout=GroupedLayout.ROW_IDS,
    )
    blocks = schedulers.walk(TALL, args, NUM_TILES - 1, NUM_TILES)
    assert blocks.m.tolist() == [INT_MAX - 255, INT_MAX - 100]
    assert blocks.b_batch.tolist() == [0, 1]
    assert blocks.valid_rows.tolist() == [155, 70]
    assert blocks.stored_rows.tolist() == [155, 100]
    assert len(schedulers.walk(TALL, args, NUM_TILES, NUM_TILES)) == 0
