"""The Python half of each kernel family: which tensor maps and arguments a problem needs."""
