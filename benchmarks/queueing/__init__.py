"""The benchmark of durable job queues, as a package.

Three kinds of processes, each with its modules. The controller, which is ``queues.py``::

    server    the PostgreSQL that all is measured on, and a database for each measurement
    rounds    which peers, round after round
    tables    the figures as text

The measuring process, which is the client of the queue::

    measured  enqueueing, drains, latency, statements
    crew      its workers, as it sees them
    wire      counts statements between a worker and PostgreSQL

And the workers::

    worker    runs jobs of one peer
    jobs      the job, and what is noted of its runs
    peer      what is asked of a queue
    peers/    the queues, one module each; and ``ours``

To add a peer, write a subclass of ``peer.Peer`` and put it into ``peers.PEERS``.
"""
