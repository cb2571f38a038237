"""From a problem (what) to a configuration (how), without a tensor, a GPU or a compiler."""
