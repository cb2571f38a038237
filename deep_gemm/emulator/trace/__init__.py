"""What happened in an emulated run, with modelled times. The emulator itself has no clock."""
