"""Peers that answer with a future: pebble, a process per job; pools, for reference."""

from __future__ import annotations

import abc

from launching.peers.base import EVERY_PARENT, Peer, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor, Future
    from typing import Any


class Futures(Peer):
    def start(self, folder: str) -> None:
        import threading

        from launching import functions

        self._functions = functions
        self._futures: list[Future[None]] = []
        self._in_flight = 0
        self._changed = threading.Condition()

    def submit(self, job: str, **arguments: str) -> None:
        with self._changed:
            while self._in_flight >= self.limit:
                self._changed.wait()
            self._in_flight += 1
        future = self._submit(getattr(self._functions, job), arguments)
        future.add_done_callback(self._done)
        self._futures.append(future)

    @abc.abstractmethod
    def _submit(self, function: Callable[..., None], arguments: dict[str, str]) -> Future[None]:
        """Start it."""

    def _done(self, _: Future[None]) -> None:
        with self._changed:
            self._in_flight -= 1
            self._changed.notify()

    def wait_all(self) -> None:
        for future in self._futures:
            error = future.exception()
            expect(error is None, error)
        self._futures.clear()
        with self._changed:
            while self._in_flight:
                self._changed.wait()


class Pebble(Futures):
    """``pebble.concurrent.process``: a process, a pipe and a thread in the parent per job."""

    key = "pebble"
    title = "pebble.concurrent.process"
    needs = ("pebble",)

    def start(self, folder: str) -> None:
        super().start(folder)
        import multiprocessing

        from pebble import concurrent

        fork = multiprocessing.get_context("fork")
        in_process = concurrent.process(context=fork)  # type: ignore[call-overload]
        names = ("stamp", "nothing", "idle", "idle_collected")
        self._wrapped = {name: in_process(getattr(self._functions, name)) for name in names}

    def _submit(self, function: Callable[..., None], arguments: dict[str, str]) -> Future[None]:
        future: Future[None] = self._wrapped[function.__name__](**arguments)
        return future


class Pool(Futures):
    """Reuses its workers, as many as it takes by default: no process of its own per job."""

    group = "reference"
    idle_jobs = 0

    def start(self, folder: str) -> None:
        super().start(folder)
        self._executor = self._make()

    @abc.abstractmethod
    def _make(self) -> Executor:
        """The pool."""

    def _submit(self, function: Callable[..., None], arguments: dict[str, str]) -> Future[None]:
        return self._executor.submit(function, **arguments)

    def stop(self) -> None:
        self._executor.shutdown()


class ThreadPool(Pool):
    key = "thread-pool"
    title = "ThreadPoolExecutor"
    parents = EVERY_PARENT

    def _make(self) -> Executor:
        from concurrent.futures import ThreadPoolExecutor

        return ThreadPoolExecutor()


class ProcessPool(Pool):
    key = "process-pool"
    title = "ProcessPoolExecutor"
    parents = EVERY_PARENT
    takes_bursts = True

    def _make(self) -> Executor:
        from concurrent.futures import ProcessPoolExecutor

        return ProcessPoolExecutor()


class Loky(Pool):
    key = "loky"
    title = "loky"
    needs = ("loky",)

    def _make(self) -> Executor:
        import loky  # type: ignore[import-untyped]

        executor: Any = loky.ProcessPoolExecutor()
        return executor  # type: ignore[no-any-return]
