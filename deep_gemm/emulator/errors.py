"""What the emulator reports. Nothing is guessed: what PTX leaves undefined is an error."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from deep_gemm.errors import DeepGemmError


class Access(NamedTuple):
    """Who accessed memory: the agent (a warp of a CTA), and its program counter then."""

    agent: int
    pc: int


class EmulationError(DeepGemmError):
    """The emulated program did something that the emulator refuses; the text says where.

    Attributes:
        is_located: whether the text names the instruction already.
    """

    is_located = False


class UnknownOpcodeError(EmulationError):
    """An instruction that the emulator does not know, with its line."""


class HazardError(EmulationError):
    """A race, a deadlock or another rule of the PTX ISA broken.

    `HazardError(rule, ...)` makes the class that the rule belongs to; docs/hazards.md says what
    each rule means.

    Attributes:
        rule: short name of the rule, such as "R2".
        other: the access that this one is in conflict with, where it is known.
    """

    _classes: ClassVar[dict[str, type[HazardError]]] = {}

    def __init_subclass__(cls, rules: tuple[str, ...] = ()) -> None:
        super().__init_subclass__()
        HazardError._classes.update(dict.fromkeys(rules, cls))

    def __new__(cls, rule: str, *arguments: object, **keywords: object) -> HazardError:
        """The error of the rule's own class."""
        return super().__new__(HazardError._classes.get(rule, cls))

    def __init__(self, rule: str, text: str, other: Access | None = None) -> None:
        """Puts the rule before the text."""
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.other = other


class MissingProxyFenceError(HazardError, rules=("R1",)):
    """A generic write is read by the async proxy without fence.proxy.async."""


class MissingReadFenceError(HazardError, rules=("R35",)):
    """What a thread has read is overwritten by the async proxy without fence.proxy.async."""


class CopyInFlightError(HazardError, rules=("R2",)):
    """Bytes are accessed while a copy into them may be in flight."""


class OperandOverwrittenError(HazardError, rules=("R3",)):
    """A stage is overwritten while a wgmma, tcgen05.mma or tcgen05.cp may still read it."""


class StoreSourceOverwrittenError(HazardError, rules=("R4",)):
    """Shared memory is overwritten, or left, while a TMA store may still read it."""


class MissingWgmmaFenceError(HazardError, rules=("R6",)):
    """Accumulators were touched since the last wgmma.fence."""


class AccumulatorInUseError(HazardError, rules=("R7",)):
    """An accumulator is touched between a wgmma and its wait."""


class DivergedWarpError(HazardError, rules=("R8",)):
    """An instruction of a whole warp or warpgroup runs without all of it."""


class BarrierInitError(HazardError, rules=("R9",)):
    """An mbarrier is used before its init is visible, or initialised twice."""


class BarrierOverrunError(HazardError, rules=("R10",)):
    """More arrivals or bytes come to an mbarrier than its phase has."""


class DeadlockError(HazardError, rules=("R11",)):
    """Nobody can go on, or a wait is for a phase that is long over."""


class ExitedCtaError(HazardError, rules=("R12",)):
    """The shared memory of a CTA that has left, or may have, is accessed."""


class ClusterRankError(HazardError, rules=("R13",)):
    """A CTA of the cluster is named that does not exist."""


class TmaArgumentError(HazardError, rules=("R14", "R18")):
    """A tensor map, address or coordinate that TMA refuses."""


class MissingMapFenceError(HazardError, rules=("R31",)):
    """TMA uses a tensor map in global memory that was not released and acquired."""


class MapInUseError(HazardError, rules=("R32",)):
    """A tensor map is changed while a copy that uses it may be in flight."""


class DescriptorError(HazardError, rules=("R15", "R16")):
    """A descriptor of an operand that the hardware refuses."""


class InstructionDescriptorError(HazardError, rules=("R17",)):
    """An instruction descriptor of tcgen05.mma with a combination that does not exist."""


class TensorAllocationError(HazardError, rules=("R19",)):
    """Tensor memory used without an allocation, or an allocation that breaks a rule."""


class TensorAddressError(HazardError, rules=("R20",)):
    """An address in tensor memory that this warp or instruction may not use."""


class TensorReadError(HazardError, rules=("R21", "R23")):
    """Tensor memory is read before what writes it is known to be over."""


class TensorOverwrittenError(HazardError, rules=("R22", "R24", "R33")):
    """Tensor memory is written while something else may read or write it."""


class CommitError(HazardError, rules=("R25",)):
    """tcgen05.commit by a thread that has issued nothing, while another one of its warp has."""


class CtaPairError(HazardError, rules=("R34",)):
    """An instruction of a CTA pair, without the pair or by the wrong CTA of it."""


class UndefinedValueError(HazardError, rules=("R26",)):
    """Something was never written, and decides all the same."""


class DependencyError(HazardError, rules=("R27",)):
    """Global memory is accessed, and nothing orders a griddepcontrol.wait before."""


class NamedBarrierError(HazardError, rules=("R28",)):
    """A named barrier with a wrong count."""


class BarrierBytesError(HazardError, rules=("R29",)):
    """The bytes of an mbarrier are accessed, or two copies write the same bytes."""


class RaceError(HazardError, rules=("race",)):
    """Two accesses are in conflict, and nothing orders them."""


class OutOfBoundsError(HazardError, rules=("bounds",)):
    """An access outside of every tensor, or of the shared memory."""


class MisalignedError(HazardError, rules=("alignment",)):
    """An access at an address that its size does not divide."""
