"""The tuner: it compiles many configurations, times those that are right, and keeps the fastest."""
