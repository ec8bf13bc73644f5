"""Figures for Prometheus: counted by this server, and asked of the store that all servers share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from job_scheduler import __version__, instants

if TYPE_CHECKING:
    from datetime import datetime

    from job_scheduler.run import RunState
    from job_scheduler.stores.base import Counts

_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class Metrics:
    """The figures of one server; none has a label that users could make endless."""

    def __init__(self, capacity: int) -> None:
        self._registry = registry = CollectorRegistry()
        self._runs = Counter(
            "job_scheduler_runs", "Runs that ended here.", ["job", "outcome"], registry=registry
        )
        self._retries = Counter(
            "job_scheduler_retries",
            "Attempts that ended here and are followed by another.",
            ["job"],
            registry=registry,
        )
        self._duration = Histogram(
            "job_scheduler_run_duration_seconds",
            "How long attempts took.",
            ["job"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._delay = Histogram(
            "job_scheduler_start_delay_seconds",
            "How long after their instant runs were started.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._last_success = Gauge(
            "job_scheduler_last_success_timestamp_seconds",
            "When a run of this job last completed here.",
            ["job"],
            registry=registry,
        )
        self._running = Gauge("job_scheduler_running", "Runs that go on here.", registry=registry)
        self._tick_age = Gauge(
            "job_scheduler_tick_age_seconds", "Since the engine's last turn.", registry=registry
        )
        self._all_running = Gauge(
            "job_scheduler_store_running", "Runs that go on, on all servers.", registry=registry
        )
        self._due = Gauge(
            "job_scheduler_store_due", "Runs that are due and wait.", registry=registry
        )
        self._oldest = Gauge(
            "job_scheduler_store_oldest_due_seconds",
            "How long the oldest of them waits.",
            registry=registry,
        )
        Gauge("job_scheduler_capacity", "How many runs may go on here.", registry=registry).set(
            capacity
        )
        Gauge("job_scheduler_build_info", "Always 1.", ["version"], registry=registry).labels(
            __version__
        ).set(1)

    def note_start(self, due_at: datetime) -> None:
        """A run has started here."""
        self._delay.observe(max(0.0, (instants.now() - due_at).total_seconds()))

    def note_end(self, job: str, state: RunState, seconds: float | None, *, again: bool) -> None:
        """An attempt has ended here."""
        if seconds is not None:
            self._duration.labels(job).observe(seconds)
        if again:
            self._retries.labels(job).inc()
            return
        self._runs.labels(job, state.value).inc()
        if state == "completed":
            self._last_success.labels(job).set_to_current_time()

    def exposition(
        self, counts: Counts, running: int, tick_age: float | None, accept: str
    ) -> tuple[bytes, str]:
        """All figures as they are now, and their content type."""
        self._running.set(running)
        self._tick_age.set(0.0 if tick_age is None else tick_age)
        self._all_running.set(counts.running)
        self._due.set(counts.due)
        waits = 0.0
        if counts.oldest_due is not None:
            waits = max(0.0, (instants.now() - counts.oldest_due).total_seconds())
        self._oldest.set(waits)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type
