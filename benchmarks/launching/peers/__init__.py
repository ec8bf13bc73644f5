"""The ways to start a job, in the order of the tables."""

from __future__ import annotations

from launching.peers.base import Peer
from launching.peers.futures import Loky, Pebble, ProcessPool, ThreadPool
from launching.peers.ours import Ours, OursLibraries, OursLogging
from launching.peers.processes import Fork, ForkServer, Spawn
from launching.peers.programs import PosixSpawn, Subprocess
from launching.peers.redis_queue import RedisQueue

_PEERS: tuple[type[Peer], ...] = (
    Ours,
    Fork,
    Spawn,
    ForkServer,
    Subprocess,
    Pebble,
    RedisQueue,
    ProcessPool,
    Loky,
    ThreadPool,
    PosixSpawn,
    OursLogging,
    OursLibraries,
)
PEERS = {peer.key: peer for peer in _PEERS}
