"""Seeded defects of k-grouped products on SM100: small edits, and what each must come to."""

from __future__ import annotations

from dataclasses import dataclass

from tests.emulator.defects import WRONG
from tests.sm100_k_groups import KCase

# Groups that end within a block, and within a word of scale factors; one without K, to be added to.
TN = KCase("tn", (100, 0, 520), c="d")
ENDS = KCase("ends", (100, 130))
NT = KCase("nt", (128, 512))
# A group without a product between others, all in one CTA.
CLEARS = KCase("tn", (128, 0, 128), m=144)

MAPS = "kernels/sm100_k_group_maps.cuh"
TILES = "sm100/load_tiles.cuh"
SF = "sm100/load_scale_factors.cuh"
STORE = "sm100/store_block.cuh"


@dataclass(frozen=True)
class KDefect:
    """An edit of one header, and what must come of it; see tests/emulator/defects.py."""

    name: str
    header: str
    before: str
    after: str
    outcome: str
    case: KCase = TN

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


K_GROUP_DEFECTS = [
    KDefect(
        "maps are not acquired",
        TILES,
        """            if (issues) {
                ptx::fence_proxy_tensormap_acquire(map_a);
                ptx::fence_proxy_tensormap_acquire(map_b);
            }
""",
        "",
        "R31",
    ),
    KDefect(
        "maps do not end with the group",
        MAPS,
        "ptx::tensormap_replace_middle_dim(map, size);",
        "ptx::tensormap_replace_middle_dim(map, args.total_k - begin);",
        WRONG,
        ENDS,
    ),
    KDefect(
        "maps do not begin with the group",
        MAPS,
        "args.operands[which] + offset",
        "args.operands[which]",
        WRONG,
    ),
    KDefect(
        "rows of a group at the stride of the first",
        MAPS,
        "ptx::tensormap_replace_middle_stride(map, size);",
        "ptx::tensormap_replace_middle_stride(map, 128);",
        WRONG,
        NT,
    ),
    KDefect(
        "a group's words begin in the last one's",
        MAPS,
        "words + ceil_div(size, word_k)",
        "words + size / word_k",
        WRONG,
    ),
    KDefect(
        "all groups have the scale factors of the first",
        SF,
        "block.first_k_block * args.sfa_stride_k +",
        "",
        WRONG,
    ),
    KDefect(
        "ends are not aligned",
        MAPS,
        "begin = min(align(before, args.alignment), args.total_k);",
        "begin = min(before, args.total_k);",
        WRONG,
        ENDS,
    ),
    KDefect(
        "a block without a product reads an accumulator",
        STORE,
        "if (block.num_k_blocks > 0) {",
        "{",
        "R21",
        CLEARS,
    ),
]
