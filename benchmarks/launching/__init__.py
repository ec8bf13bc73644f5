"""The benchmark of starting a job, as a package.

Two kinds of modules. Those of the controller, the process that ``launch.py`` is::

    rows      what is measured, in which parents
    rounds    round after round, and what a figure is
    programs  starts a fresh process per measurement and leaves nothing of it behind
    tables    the figures as text

And those of the measured process, which import little, so that a bare parent is bare::

    measured  calls, rate, bursts, memory of one peer in one parent
    waiting   memory of runs that wait
    parents   bare, heavy, with threads, beside a hog
    peers/    the ways to start a job
    jobs/     the jobs as ours
    functions the same jobs as plain functions, for the peers
    memory    what a tree of processes occupies; the controller uses it too

To add a peer, write a subclass of ``peers.base.Peer`` and put it into ``peers.PEERS``; to add a
parent, write a function and put it into ``parents.PARENTS``.
"""
