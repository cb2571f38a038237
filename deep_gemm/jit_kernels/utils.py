"""What engines for version 1 import from here."""

from __future__ import annotations

from deep_gemm.layout import get_col_major_tma_aligned_tensor, get_tma_aligned_size
from deep_gemm.settings import (
    get_m_alignment_for_contiguous_layout,
    get_num_sms,
    set_num_sms,
)
from deep_gemm.utils.math import ceil_div

__all__ = [
    "ceil_div",
    "get_col_major_tma_aligned_tensor",
    "get_m_alignment_for_contiguous_layout",
    "get_num_sms",
    "get_tma_aligned_size",
    "set_num_sms",
]
