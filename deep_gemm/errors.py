"""Exceptions. All are `RuntimeError`s, because callers of the reference library catch that."""

from __future__ import annotations


class DeepGemmError(RuntimeError):
    """Root of every error that this library raises on purpose."""


class ArgumentError(DeepGemmError, ValueError):
    """A call was refused on the host: the text names the argument, the rule and what was got."""


class ScaleFactorError(ArgumentError):
    """FP32 scale factors for SM100, of this call or of an earlier one, were not powers of two."""


class UnsupportedArchitectureError(ArgumentError):
    """No kernel of the asked kind exists for the tensor's device."""


class CompilationError(DeepGemmError):
    """The run-time compiler refused a kernel; the text carries its options and its log."""


class MissingDependencyError(DeepGemmError):
    """A driver, a compiler or a header is absent; the text says which command mends it."""


class CudaError(DeepGemmError):
    """A CUDA driver call failed; the text has the call, the error's name and its meaning."""
