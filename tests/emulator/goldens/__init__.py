"""What was recorded on an H100 and must come out of the emulator bit for bit."""
