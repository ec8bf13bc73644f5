"""A ``multiprocessing.Process`` per job, with each start method."""

from __future__ import annotations

from launching.peers.base import EVERY_PARENT, Peer, expect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from multiprocessing.context import BaseContext
    from multiprocessing.process import BaseProcess


class Multiprocessing(Peer):
    parents = EVERY_PARENT
    method = ""

    def start(self, folder: str) -> None:
        import multiprocessing
        import multiprocessing.connection

        from launching import functions

        self._functions = functions
        self._wait = multiprocessing.connection.wait
        self._context: BaseContext = multiprocessing.get_context(self.method)
        if self.method == "forkserver":
            self._context.set_forkserver_preload(["launching.functions"])
        self._running: dict[object, BaseProcess] = {}

    def submit(self, job: str, **arguments: str) -> None:
        if len(self._running) >= self.limit:
            self._reap_some()
        function = getattr(self._functions, job)
        process = self._context.Process(target=function, kwargs=arguments)  # type: ignore[attr-defined]
        process.start()
        self._running[process.sentinel] = process

    def _reap_some(self) -> None:
        for sentinel in self._wait(list(self._running)):  # type: ignore[arg-type]
            process = self._running.pop(sentinel)
            process.join()
            expect(process.exitcode == 0, process)
            process.close()

    def wait_all(self) -> None:
        while self._running:
            self._reap_some()


class Fork(Multiprocessing):
    key = "fork"
    title = "multiprocessing fork"
    method = "fork"
    takes_bursts = True


class Spawn(Multiprocessing):
    key = "spawn"
    title = "multiprocessing spawn"
    method = "spawn"


class ForkServer(Multiprocessing):
    key = "forkserver"
    title = "forkserver, preloaded"
    method = "forkserver"
