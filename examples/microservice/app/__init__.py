"""A service for cron jobs: its job types are the methods of ``job_executor.JobExecutor``."""
