"""Records of the instructions that our kernel does not have, and that signal or wait."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest

from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.trace.recorder import (
    Arrive,
    CopyCommit,
    CopyWait,
    Load,
    Phase,
    Record,
    Recorder,
    Store,
    Sync,
    Wait,
)
from deep_gemm.emulator.trace.replay import replay
from tests.emulator.small_kernels import ORDERS, run

FULL = 1024


def recorded(body: str, **launch: Any) -> dict[tuple[int, int], list[Record]]:
    recorder, execute = Recorder(), emulator.run

    def with_recorder(*args: Any, **kwargs: Any) -> int:
        return execute(*args, **{**kwargs, "recorder": recorder})

    with mock.patch.object(emulator, "run", with_recorder):
        run(body + "ret;", np.arange(2048, dtype=np.uint32), **launch)
    # A wait that nothing was recorded for would be refused, or end too early.
    replay(recorder.records)
    return recorder.records


def operations(records: dict[tuple[int, int], list[Record]], cta: int, warp: int) -> list[Any]:
    return [record.operation for record in records[cta, warp]]


INIT = """
setp.eq.u32 %p1, %tid, 0;
@%p1 mbarrier.init.shared::cta.b64 [%full], {count};
@%p1 fence.mbarrier_init.release.cluster;
{join}
"""


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
def test_named_barriers(order: Any) -> None:
    body = """
        setp.lt.u32 %p1, %tid, 32;
        @%p1 bra FIRST;
        barrier.sync.aligned 1, 64;
        bra JOIN;
        FIRST:
        bar.arrive 1, 64;
        JOIN:
        setp.eq.u32 %p2, %tid, 5;
        barrier.cta.red.popc.aligned.u32 %r1, 2, 64, %p2;
        bar.cta.sync 1, 64;
    """
    records = recorded(body, num_threads=64, order=order)
    one, two, again = (Phase(0, "bar.sync", *place) for place in ((1, 0), (2, 0), (1, 1)))
    assert operations(records, 0, 0) == [Arrive((one,)), Sync(two), Sync(again)]
    assert operations(records, 0, 1) == [Sync(one), Sync(two), Sync(again)]


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
def test_bulk_copies_and_what_counts_bytes(order: Any) -> None:
    body = (
        INIT.format(count=2, join="bar.sync 0;")
        + """
        @!%p1 bra WAIT;
        mbarrier.arrive.expect_tx.shared::cta.b64 %rd2, [%full], 144;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes
            [%at], [%in], 128, [%full];
        mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%full], 16;
        mbarrier.arrive_drop.shared::cta.b64 %rd3, [%full];
        TRY:
        mbarrier.try_wait.shared::cta.b64 %p2, [%full], %rd2;
        @!%p2 bra TRY;
        cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 128;
        cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%out], [%at], 64;
        cp.async.bulk.commit_group;
        cp.async.bulk.wait_group 0;
        WAIT:
    """
    )
    did = operations(recorded(body, order=order), 0, 0)
    phase = Phase(0, "mbarrier", FULL, 0)
    load = Load(0, (phase,), (2048, 2176))
    assert did[1:6] == [Arrive((phase,)), load, Arrive((phase,)), Arrive((phase,)), Wait((phase,))]
    assert did[6:8] == [Store(128), Store(64)]


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
def test_a_bulk_copy_to_a_peer_counts_there(order: Any) -> None:
    join = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;"
    body = (
        INIT.format(count=1, join="st.shared.u32 [%at], %tid;")
        + """
        fence.proxy.async.shared::cta;
    """
        + join
        + """
        xor.b32 %r1, %rank, 1;
        mapa.shared::cluster.u32 %r2, %full, %r1;
        add.u32 %r3, %r2, 2048;
        @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], 16;
        @%p1 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes
            [%r3], [%at], 16, [%r2];
        TRY:
        mbarrier.try_wait.parity.shared::cta.b64 %p2, [%full], 0;
        @!%p2 bra TRY;
    """
        + join
    )
    records = recorded(body, cluster_size=2, order=order)
    for cta in range(2):
        (load,) = [one for one in operations(records, cta, 0) if isinstance(one, Load)]
        assert load.phases == (Phase(1 - cta, "mbarrier", FULL, 0),)
        assert load.target == (FULL + 2048, FULL + 2064)


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
def test_a_remote_store_signals_its_peer(order: Any) -> None:
    join = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;"
    body = (
        INIT.format(count=1, join=join)
        + """
        xor.b32 %r1, %rank, 1;
        mapa.shared::cluster.u32 %r2, %full, %r1;
        add.u32 %r3, %r2, 2048;
        @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], 4;
        @%p1 st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r3], %tid, [%r2];
        TRY:
        mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [%full], 0;
        @!%p2 bra TRY;
    """
        + join
    )
    records = recorded(body, cluster_size=2, order=order)
    for cta in range(2):
        arrived = [one.phases for one in operations(records, cta, 0) if isinstance(one, Arrive)]
        assert (Phase(1 - cta, "mbarrier", FULL, 0),) in arrived


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
def test_groups_of_cp_async(order: Any) -> None:
    body = """
        mul.lo.u32 %r1, %tid, 4;
        add.u32 %r1, %r1, %at;
        cp.async.ca.shared.global [%r1], [%in], 4;
        cp.async.commit_group;
        cp.async.ca.shared.global [%r1+1024], [%in], 4;
        cp.async.wait_group 0;
        cp.async.wait_all;
    """
    did = operations(recorded(body, order=order), 0, 0)
    assert did[1:2] + did[3:] == [CopyCommit(), CopyWait(0), CopyWait(None)]
