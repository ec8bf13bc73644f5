"""A worker process: runs jobs of one peer, and notes when each began.

It says ``ready`` once all is imported, waits for a line, works until its input says or does
anything else, and then writes its notes. Meanwhile it says how many have run.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import threading
from pathlib import Path

from queueing import jobs
from queueing.peer import Peer
from queueing.peers import PEERS

_PAUSE = 0.02


def main() -> None:
    key, place, path, telling = sys.argv[1:]
    output = _take_output()
    if telling == "each":
        jobs.tell_to = output
    peer = PEERS[key](place)
    for module in peer.needs:
        __import__(module)
    os.write(output, b"ready\n")
    os.read(0, 1_000)
    with asyncio.Runner(loop_factory=_loop_factory(peer)) as runner:
        runner.run(_work(peer, output))
    jobs.write(Path(path))
    os._exit(0)  # some peers leave threads behind that would be waited for


def _take_output() -> int:
    """What libraries print goes elsewhere from here on."""
    output = os.dup(1)
    os.dup2(2, 1)
    return output


def _loop_factory(peer: Peer) -> type[asyncio.AbstractEventLoop] | None:
    if not peer.uses_uvloop:
        return None
    import uvloop

    return uvloop.Loop


async def _work(peer: Peer, output: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def talk() -> None:
        told = 0
        while not select.select([0], [], [], _PAUSE)[0]:
            if jobs.tell_to is None and len(jobs.noted) != told:
                told = len(jobs.noted)
                jobs.tell(output)
        loop.call_soon_threadsafe(stop.set)

    threading.Thread(target=talk, daemon=True).start()
    await peer.work(stop)
