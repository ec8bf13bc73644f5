"""The folder of jobs that the measured service has."""
