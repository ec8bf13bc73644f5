"""The command ``job-scheduler``."""
