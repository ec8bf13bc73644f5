"""The queues that are compared, in the order of the table."""

from __future__ import annotations

from queueing.ours import Ours, OursSqlite
from queueing.peer import Peer
from queueing.peers.apscheduler4 import APScheduler4
from queueing.peers.asyncpg_limit import AsyncpgLimit, AsyncpgLimit500
from queueing.peers.chancy import Chancy
from queueing.peers.dbos import DBOS
from queueing.peers.graphile import GraphileWorker
from queueing.peers.huey import Huey
from queueing.peers.pg_scheduler import PgScheduler
from queueing.peers.pgqueuer import PgQueuer
from queueing.peers.procrastinate import Procrastinate
from queueing.peers.sqlite_limit import SqliteLimit

_PEERS: tuple[type[Peer], ...] = (
    Ours,
    PgQueuer,
    Chancy,
    Procrastinate,
    DBOS,
    APScheduler4,
    PgScheduler,
    GraphileWorker,
    OursSqlite,
    Huey,
    AsyncpgLimit,
    AsyncpgLimit500,
    SqliteLimit,
)
PEERS = {peer.key: peer for peer in _PEERS}
