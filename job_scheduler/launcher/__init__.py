"""One OS process per job, without a fork of the program that asks for it.

Forking a threaded web process is unsafe, and costs milliseconds that grow with its heap; a
fresh interpreter per job costs 15 ms and more. So the program starts one small helper, the
*zygote*, by a clean exec; the zygote imports the job classes once and forks one child per job::

    the program                     the zygote                    a child
    ───────────                     ──────────                    ───────
    run() ── control: RUN ────────> queue ── fork ──────────────> setsid, signals, limits
                                                                       │
    reader thread <── reports: STARTED ────────────────────────────────┤
                  <── reports: RESULT or FAILURE ──────────────────────┤
                                    reads stderr, reaps <───────── _exit
                  <── reports: ENDED ──┘

=================  ==============================================================
``client``         the program's side: feeds a zygote, listens, and if need be replaces it
``line``           starting a zygote, and the sockets to it
``zygote``         the single-threaded loop: limits, deadlines, stderr, reaping
``child``          the fork, and what a forked child does
``work``           running one job's code, wherever its process came from
``queue``          the order of the waiting runs, within the limits of their classes
``outbox``         reports on their way to a program that may be slow or gone
``stderr``         the jobs' stderr: its tail, and passing it on without blocking
``naming``         ``multiprocessing.current_process().name``
``main_module``    finding and importing job classes, also those of a script
``wire``           the messages, and how values travel
``spawn``          the fallback: a clean interpreter per job (in it: ``spawned``)
``ending``         from an exit status to the outcome of a run
``process``        the ``multiprocessing.Process`` face of a run
=================  ==============================================================

What ``zygote`` needs of these is loaded into every job's process. It imports modules written
in C only (``tests/test_architecture.py`` holds the list): each megabyte that
the zygote holds costs every job 16 µs at its fork and 16 µs at its exit.
"""
