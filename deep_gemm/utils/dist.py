"""Several processes, one for each GPU: how they find each other, and gather tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deep_gemm import knobs
from deep_gemm.checks import refuse
from deep_gemm.errors import DeepGemmError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["dist_print", "init_dist", "uneven_all_gather"]

_local_ranks: list[int] = []
"""The rank of this process on its node, as `init_dist` was told."""


def init_dist(local_rank: int, num_local_ranks: int) -> tuple[int, int, ProcessGroup]:
    """Joins the processes of all nodes, by NCCL on this node's GPU number `local_rank`, which
    becomes the current device, or by Gloo where there is none.

    Where they meet is MASTER_ADDR and MASTER_PORT; WORLD_SIZE is the number of nodes, RANK this
    node's.

    Args:
        local_rank: of this process, among those of its node.
        num_local_ranks: processes of a node.

    Returns:
        The rank of this process, the number of processes, and a group of them all.

    Raises:
        ArgumentError: local_rank is not in 0..num_local_ranks - 1.
    """
    from torch import distributed

    if not 0 <= local_rank < num_local_ranks:
        refuse("local_rank", f"must be in 0..{num_local_ranks - 1}", local_rank)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    world_size = knobs.num_nodes.get() * num_local_ranks
    distributed.init_process_group(
        backend="nccl" if torch.cuda.is_available() else "gloo",
        init_method=f"tcp://{knobs.master_addr.get()}:{knobs.master_port.get()}",
        world_size=world_size,
        rank=knobs.node_rank.get() * num_local_ranks + local_rank,
    )
    _local_ranks[:] = [local_rank]
    group = distributed.new_group(list(range(world_size)))
    return distributed.get_rank(), world_size, group


def uneven_all_gather(
    tensor: torch.Tensor, dim: int = 0, group: ProcessGroup | None = None
) -> torch.Tensor:
    """All processes' tensors, one behind the other; they may differ in one dimension's size.

    Args:
        tensor: this process's; elsewhere it has the same dtype and other dimensions.
        dim: the dimension that may differ, along which they are joined.
        group: the processes; None for all.

    Returns:
        A tensor on this process's device, the same in every process.
    """
    from torch import distributed

    num_ranks = distributed.get_world_size(group)
    mine = torch.tensor([tensor.shape[dim]], device=tensor.device)
    sizes = [torch.empty_like(mine) for _ in range(num_ranks)]
    distributed.all_gather(sizes, mine, group=group)
    counts = [int(size) for size in sizes]
    # NCCL and Gloo gather equal sizes only, of contiguous tensors.
    rows = tensor.transpose(0, dim)
    padded = tensor.new_zeros((max(counts), *rows.shape[1:]))
    padded[: rows.shape[0]] = rows
    gathered = [torch.empty_like(padded) for _ in range(num_ranks)]
    distributed.all_gather(gathered, padded, group=group)
    parts = [part[:count] for part, count in zip(gathered, counts, strict=True)]
    return torch.cat(parts).transpose(0, dim).contiguous()


def dist_print(s: str = "", once_in_node: bool = False) -> None:
    """Prints in every process, or in the first one of each node, and waits for the others.

    Raises:
        DeepGemmError: `init_dist` was not called.
    """
    from torch import distributed

    if not _local_ranks:
        raise DeepGemmError("dist_print needs init_dist first")
    if not once_in_node or _local_ranks == [0]:
        print(s, flush=True)
    distributed.barrier()
