"""mbarrier: an object in shared memory that counts arrivals and bytes, phase by phase.

The state is that of the PTX ISA, 9.7.13.15; what the ISA leaves undefined is a HazardError.
"""

from __future__ import annotations

from deep_gemm.emulator.errors import HazardError

MAX_COUNT = 2**20 - 1
"""Largest arrival count and, in magnitude, largest number of pending bytes."""

NO_AGENT = -1
"""Stands for an agent (whoever accesses memory) where nobody asks which."""


class Mbarrier:
    """One barrier, from its mbarrier.init on.

    A phase is complete once nothing is pending, neither arrivals nor bytes; the next one then
    starts. Bytes may arrive before they are announced, so `tx` may be negative for a while, but
    only as long as an arrival is pending: nothing else keeps the phase open.

    Attributes:
        expected: arrivals that each phase needs.
        pending: arrivals that the present phase still needs.
        tx: bytes announced to the present phase, less those that have arrived.
        phase: number of complete phases; its lowest bit is the present phase's parity.
        arrivals: by phase, the agents of its arrivals and copies, in order; the last entry is the
            present phase's.
    """

    def __init__(self, count: int) -> None:
        """Starts phase 0.

        Raises:
            HazardError: R9, the count is not in 1..2^20-1.
        """
        if not 1 <= count <= MAX_COUNT:
            raise HazardError("R9", f"mbarrier.init with a count of {count}")
        self.expected = count
        self.pending = count
        self.tx = 0
        self.phase = 0
        self.arrivals: list[list[int]] = [[]]
        self._phase_seen: dict[int, int] = {}

    def __str__(self) -> str:
        """The phase and what it lacks, for reports."""
        return (
            f"phase {self.phase} (parity {self.phase & 1}) lacks {self.pending} of"
            f" {self.expected} arrivals and {self.tx} bytes"
        )

    def arrive(self, count: int = 1, agent: int = NO_AGENT) -> None:
        """Counts arrivals, which may complete the phase.

        Raises:
            HazardError: R10, there are more than are pending, or they are the last ones and more
                bytes have arrived than were announced.
        """
        if not 1 <= count <= self.pending:
            raise HazardError("R10", f"{count} arrivals on an mbarrier whose {self}")
        self.pending -= count
        self._phase_seen[agent] = self.phase
        self.arrivals[-1].append(agent)
        self._complete_if_settled()

    def drop(self, count: int = 1, agent: int = NO_AGENT) -> None:
        """Counts arrivals, and expects as many fewer from the next phase on.

        Raises:
            HazardError: as arrive.
        """
        self.expected -= min(count, self.pending)
        self.arrive(count, agent)

    def expect_tx(self, num_bytes: int) -> None:
        """Announces bytes to the present phase.

        Raises:
            HazardError: R10, more than 2^20-1 bytes are pending.
        """
        self._count_bytes("expect_tx", num_bytes, 1)

    def complete_tx(
        self, num_bytes: int, agent: int = NO_AGENT, issue_phase: int | None = None
    ) -> None:
        """Counts bytes that have arrived, which may complete the phase.

        Args:
            num_bytes: of one asynchronous copy.
            agent: the copy's.
            issue_phase: the barrier's `phase` when the copy was issued, to check that its bytes
                count for that phase.

        Raises:
            HazardError: R10, more bytes than announced to a phase without pending arrivals, more
                than 2^20-1 ahead of their announcement, or bytes of an earlier phase.
        """
        if issue_phase is not None and issue_phase != self.phase:
            raise HazardError(
                "R10",
                f"{num_bytes} bytes, whose copy was issued in phase {issue_phase} of an mbarrier,"
                f" arrive in phase {self.phase}: the earlier phase did not expect them",
            )
        self._count_bytes("complete_tx", num_bytes, -1)
        self.arrivals[-1].append(agent)
        self._complete_if_settled()

    def test_parity(self, parity: int, agent: int | None = None, known: int = 0) -> bool:
        """Whether the phase of this parity, the present one or the one before, is complete.

        Args:
            parity: 0 or 1.
            agent: who asks; if given, it is checked that it keeps up with the phases.
            known: phases that the agent knows to be complete without having asked.

        Raises:
            HazardError: R11, the parity is neither 0 nor 1, or two phases or more were completed
                since the agent last asked, arrived or knew (at first, since init): one bit can't
                tell which.
        """
        if parity not in (0, 1):
            raise HazardError("R11", f"wait on an mbarrier for parity {parity}")
        if agent is not None:
            missed = self.phase - max(self._phase_seen.get(agent, 0), known)
            if missed >= 2:
                raise HazardError(
                    "R11",
                    f"agent {agent} waits for parity {parity} of an mbarrier that has completed"
                    f" {missed} phases since it last looked; now {self}",
                )
            self._phase_seen[agent] = self.phase
        return self.phase & 1 != parity

    def _count_bytes(self, operation: str, num_bytes: int, sign: int) -> None:
        tx = self.tx + sign * num_bytes
        if num_bytes < 0 or abs(tx) > MAX_COUNT:
            raise HazardError("R10", f"{operation} of {num_bytes} on an mbarrier whose {self}")
        self.tx = tx

    def _complete_if_settled(self) -> None:
        if self.pending or self.tx > 0:
            return
        if self.tx < 0:
            raise HazardError(
                "R10", f"{-self.tx} bytes more than announced to an mbarrier whose {self}"
            )
        self.phase += 1
        self.pending = self.expected
        self.arrivals.append([])
