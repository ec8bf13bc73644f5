"""The benchmark of ``executor="celery"``, as a package.

Three kinds of processes, each with its modules. The controller, which is ``fleet.py``::

    rounds    what is measured of which side, round after round
    servers   a Redis and a Celery worker, started and ended
    tables    the figures as text

The client, which is ``client`` as a program: a fresh one for each figure, which sends tasks by bare
Celery or by a scheduler. And the worker of Celery, which has the application of ``tasks``, as the
client has.
"""
