"""How the driver encodes a tensor map: storing an address does what the driver's own call does."""

from __future__ import annotations

import ctypes

import torch

from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.tensor_map import FLOAT32, UINT8, BoxMap, TensorMap, word_of_address


class OneMap(KernelArguments):
    _fields_ = (("map", TensorMap),)


def test_a_stored_address_is_an_encoded_one() -> None:
    torch.zeros(1, device="cuda")
    memory = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    for box_map in (
        BoxMap(UINT8, (7168, 64, 1), (7168, 7168 * 64), (128, 64, 1), 128),
        BoxMap(FLOAT32, (64, 56, 1), (256, 256 * 56), (64, 4, 1)),
    ):
        mine, drivers = OneMap.allocate(), OneMap.allocate()
        box_map.encode(mine.address_of("map"), memory.data_ptr())
        box_map.encode(drivers.address_of("map"), memory.data_ptr())
        word = word_of_address(mine.address_of("map"), memory.data_ptr())
        assert bytes(mine) == bytes(drivers), "asking leaves a map as it was"
        if word is None:
            continue
        words = (ctypes.c_uint64 * 16).from_buffer(mine)
        for offset in range(0, 1 << 28, (1 << 22) + 16):
            words[word] = memory.data_ptr() + offset
            box_map.encode(drivers.address_of("map"), memory.data_ptr() + offset)
            assert bytes(mine) == bytes(drivers)
