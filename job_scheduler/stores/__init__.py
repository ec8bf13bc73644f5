"""Where schedules and runs are kept, so that what was accepted is not lost."""
