"""The dozen CUDA driver calls that the library makes, through ctypes.

ctypes rather than a bindings package: importing one takes 0.1 s, longer than everything else that
a warm process does before its first launch, and its launch call takes three times as long.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p

from deep_gemm.errors import CudaError, MissingDependencyError

LIBRARY = "libcuda.so.1"

ERROR_INVALID_CONTEXT = 201
_MAX_DYNAMIC_SMEM = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_CLUSTER_DIMENSION = 4  # CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
_PROGRAMMATIC_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_PORTABLE_AND_MAPPED = 3  # CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP
_CAPTURE_RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED


class LaunchAttribute(ctypes.Structure):
    """CUlaunchAttribute: an id and 64 bytes of value, here up to three words."""

    _fields_ = (("id", c_int), ("pad", c_int), ("value", c_uint * 3), ("rest", c_uint * 13))


class LaunchConfig(ctypes.Structure):
    """CUlaunchConfig."""

    _fields_ = (
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("smem_bytes", c_uint),
        ("stream", c_void_p),
        ("attributes", POINTER(LaunchAttribute)),
        ("num_attributes", c_uint),
    )


def launch_config(
    grid: int, threads: int, smem_bytes: int, cluster_size: int, pdl: bool = False
) -> LaunchConfig:
    """A one-dimensional launch of `grid` CTAs in clusters of `cluster_size`; with programmatic
    dependent launch if `pdl`."""
    config = LaunchConfig((grid, 1, 1), (threads, 1, 1), smem_bytes)
    attributes = []
    if cluster_size > 1:
        attributes.append(LaunchAttribute(_CLUSTER_DIMENSION, 0, (cluster_size, 1, 1)))
    if pdl:
        attributes.append(LaunchAttribute(_PROGRAMMATIC_SERIALIZATION, 0, (1, 0, 0)))
    if attributes:
        # The configuration keeps the array alive, as ctypes does for what pointers are cast from.
        array = (LaunchAttribute * len(attributes))(*attributes)
        config.attributes = ctypes.cast(array, POINTER(LaunchAttribute))
        config.num_attributes = len(attributes)
    return config


_SIGNATURES: dict[str, tuple[object, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuGetErrorString": (c_int, POINTER(c_char_p)),
    "cuCtxGetCurrent": (POINTER(c_void_p),),
    "cuCtxSetCurrent": (c_void_p,),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuMemHostAlloc": (POINTER(c_void_p), c_size_t, c_uint),
    "cuThreadExchangeStreamCaptureMode": (POINTER(c_int),),
    "cuLibraryLoadData": (
        POINTER(c_void_p),
        c_char_p,
        *(c_void_p, c_void_p, c_uint),
        *(c_void_p, c_void_p, c_uint),
    ),
    "cuLibraryGetKernel": (POINTER(c_void_p), c_void_p, c_char_p),
    "cuKernelSetAttribute": (c_int, c_int, c_void_p, c_int),
    "cuTensorMapEncodeTiled": (
        c_void_p,
        c_int,
        c_uint,
        c_void_p,
        POINTER(c_uint64),
        POINTER(c_uint64),
        POINTER(c_uint),
        POINTER(c_uint),
        *(c_int, c_int, c_int, c_int),
    ),
    "cuTensorMapReplaceAddress": (c_void_p, c_void_p),
    "cuLaunchKernelEx": (POINTER(LaunchConfig), c_void_p, c_void_p, c_void_p),
}


class Driver:
    """The driver library. Each method is one call, or the few that belong together."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(LIBRARY)
        except OSError:
            text = f"{LIBRARY} was not found: install the NVIDIA driver"
            raise MissingDependencyError(text) from None
        for name, argument_types in _SIGNATURES.items():
            if not hasattr(library, name):
                text = f"{LIBRARY} has no {name}: install an NVIDIA driver for CUDA 12 or newer"
                raise MissingDependencyError(text)
            getattr(library, name).argtypes = argument_types
        self._library = library
        self.tensor_map_replace_address = library.cuTensorMapReplaceAddress
        self.launch_kernel = library.cuLaunchKernelEx
        self.check("cuInit", library.cuInit(0))

    def check(self, call: str, status: int) -> None:
        """Raises the driver's own words if a call failed.

        Raises:
            CudaError: `status` is not CUDA_SUCCESS.
        """
        if status == 0:
            return
        name, meaning = c_char_p(), c_char_p()
        self._library.cuGetErrorName(status, byref(name))
        self._library.cuGetErrorString(status, byref(meaning))
        words = [(text.value or b"?").decode() for text in (name, meaning)]
        raise CudaError(f"{call} failed: {words[0]} ({status}), {words[1]}")

    def version(self) -> tuple[int, int]:
        """The newest CUDA version that the driver supports, as (major, minor)."""
        version = c_int()
        self.check("cuDriverGetVersion", self._library.cuDriverGetVersion(byref(version)))
        return version.value // 1000, version.value % 1000 // 10

    def load_kernel(self, cubin: bytes, entry: str) -> int:
        """Loads a cubin for all devices and returns the CUkernel of its entry."""
        library, kernel = c_void_p(), c_void_p()
        with self._capture_allows_loading():
            none = (None, None, 0)
            status = self._library.cuLibraryLoadData(byref(library), cubin, *none, *none)
            self.check("cuLibraryLoadData", status)
            status = self._library.cuLibraryGetKernel(byref(kernel), library, entry.encode())
            self.check(f"cuLibraryGetKernel({entry})", status)
        return kernel.value or 0

    def allow_dynamic_smem(self, kernel: int, device: int, num_bytes: int) -> None:
        """Raises the kernel's limit of dynamic shared memory on one device."""
        with self._capture_allows_loading():
            status = self._library.cuKernelSetAttribute(
                _MAX_DYNAMIC_SMEM, num_bytes, kernel, device
            )
        self.check(f"cuKernelSetAttribute(shared memory = {num_bytes})", status)

    def prepared_launch(
        self, config: LaunchConfig, kernel: int, parameter: ctypes.Structure
    ) -> Callable[[], int]:
        """cuLaunchKernelEx of a kernel with one parameter; each call returns a status.

        Everything is converted once, here, to what ctypes hands on as it is; config, but for its
        attributes, and the parameter may be changed between calls.
        """
        # An item of a library, unlike an attribute, is a new function, here one without argtypes.
        function = self._library["cuLaunchKernelEx"]
        parameters = (c_void_p * 1)(ctypes.addressof(parameter))
        return functools.partial(function, byref(config), c_void_p(kernel), parameters, None)

    def ensure_context(self, device: int) -> None:
        """Makes the device's primary context current, if this thread has no context yet.

        PyTorch leaves a thread without one until it runs a kernel there, and the driver's calls,
        tensor maps among them, need one.
        """
        context = c_void_p()
        self.check("cuCtxGetCurrent", self._library.cuCtxGetCurrent(byref(context)))
        if context.value is not None:
            return
        status = self._library.cuDevicePrimaryCtxRetain(byref(context), device)
        self.check("cuDevicePrimaryCtxRetain", status)
        self.check("cuCtxSetCurrent", self._library.cuCtxSetCurrent(context))

    def host_memory(self, device: int, num_bytes: int) -> int:
        """Memory of the host that devices can write at the same address; it is never given back."""
        self.ensure_context(device)
        address = c_void_p()
        with self._capture_allows_loading():
            status = self._library.cuMemHostAlloc(byref(address), num_bytes, _PORTABLE_AND_MAPPED)
        self.check(f"cuMemHostAlloc({num_bytes} bytes)", status)
        return address.value or 0

    @contextmanager
    def _capture_allows_loading(self) -> Iterator[None]:
        """Lets this thread load code, or take memory, while one of its streams is being captured
        into a graph.

        Neither enqueues anything on the captured stream, so the graph is not spoilt; the default
        capture mode forbids them only because they might synchronise with other streams.
        """
        mode = c_int(_CAPTURE_RELAXED)
        exchange = self._library.cuThreadExchangeStreamCaptureMode
        self.check("cuThreadExchangeStreamCaptureMode", exchange(byref(mode)))
        try:
            yield
        finally:
            exchange(byref(mode))

    def encode_tensor_map(
        self,
        destination: int,
        dtype: int,
        address: int,
        dims: tuple[int, ...],
        strides: tuple[int, ...],
        box: tuple[int, ...],
        swizzle: int,
        l2_promotion: int,
    ) -> None:
        """cuTensorMapEncodeTiled without interleaving, element strides of 1, zeros out of range.

        Args:
            destination: address of the 128-byte map, 64-byte aligned.
            dtype: CUtensorMapDataType.
            address: first byte of the tensor, 16-byte aligned.
            dims: sizes in elements, innermost first.
            strides: bytes between elements of dimension 1, 2, ...
            box: elements of one copy, innermost first.
            swizzle: CUtensorMapSwizzle.
            l2_promotion: CUtensorMapL2promotion.
        """
        rank = len(dims)
        status = self._library.cuTensorMapEncodeTiled(
            destination,
            dtype,
            rank,
            address,
            (c_uint64 * rank)(*dims),
            (c_uint64 * (rank - 1))(*strides),
            (c_uint * rank)(*box),
            (c_uint * rank)(*(1,) * rank),
            0,
            swizzle,
            l2_promotion,
            0,
        )
        self.check(f"cuTensorMapEncodeTiled({dims=}, {strides=}, {box=}, {swizzle=})", status)


@functools.cache
def driver() -> Driver:
    """The process's driver library, loaded at the first use.

    Raises:
        MissingDependencyError: there is no driver.
        CudaError: the driver cannot be initialised.
    """
    return Driver()
