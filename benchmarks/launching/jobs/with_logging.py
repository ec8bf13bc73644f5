"""The same jobs in a module that imports ``logging``, as most do.

``logging`` and the ``threading`` it imports have hooks that run in each forked child.
"""

import logging

from launching.jobs import plain

logger = logging.getLogger(__name__)


class Stamp(plain.Stamp):
    pass


class Nothing(plain.Nothing):
    pass


class Idle(plain.Idle):
    pass


class IdleCollected(plain.IdleCollected):
    pass


JOBS = {"stamp": Stamp, "nothing": Nothing, "idle": Idle, "idle_collected": IdleCollected}
