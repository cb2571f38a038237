"""From a compiled kernel to a running one: the only rooms that touch the CUDA driver."""
