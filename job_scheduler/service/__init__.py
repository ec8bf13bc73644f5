"""A service: cron jobs over REST, with a dashboard, in one process."""
