"""The same jobs in a module that imports two large libraries, as a job with real work does."""

import requests
import sqlalchemy

from launching.jobs import plain

LIBRARIES = (requests, sqlalchemy)


class Stamp(plain.Stamp):
    pass


class Nothing(plain.Nothing):
    pass


class Idle(plain.Idle):
    pass


class IdleCollected(plain.IdleCollected):
    pass


JOBS = {"stamp": Stamp, "nothing": Nothing, "idle": Idle, "idle_collected": IdleCollected}
