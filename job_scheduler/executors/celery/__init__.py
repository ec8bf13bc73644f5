"""Runs on the workers of a Celery application: what is sent, what is heard, and who is lost."""
