"""The service: a REST API and a dashboard over a store; see ``job-scheduler serve``."""
