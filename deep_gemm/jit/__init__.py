"""From kernel source to cubin: compile at run time, once per host, and remember on disk."""
