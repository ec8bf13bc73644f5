"""One OS process per job, without a fork of the program that asks for it.

Forking a threaded web process is unsafe, and costs milliseconds that grow with its heap; a
fresh interpreter per job costs 15 ms and more. So the program starts one small helper, the
*zygote*, by a clean exec; the zygote imports the job classes once and forks one child per job::

    the program                     the zygote                    a child
    ───────────                     ──────────                    ───────
    run() ── control: RUN ────────> queue ── fork ──────────────> setsid, signals, limits
                                          or an order to a spare,      │
                                          which has done that already  │
    reader thread <── reports: STARTED ────────────────────────────────┤
                  <── reports: RESULT or FAILURE ──────────────────────┤
                                    reads stderr, reaps <───────── _exit
                  <── reports: ENDED ──┘

The program's side:

=================  ==============================================================
``client``         feeds a zygote, listens to it, and if need be replaces it
``books``          the runs that were handed over and have not ended
``boot``           starting a zygote
``line``           the sockets to one, and asking it for something
``quick_send``     a send that keeps the interpreter's lock
``aside``          a thread for what calls the program's log handlers
``process``        the ``multiprocessing.Process`` face of a run
``ending``         from an exit status to the outcome of a run
``post_mortem``    what probably killed it, in words
``spawn``          the fallback: a clean interpreter per job (in it: ``spawned``)
=================  ==============================================================

The zygote's and its children's:

=================  ==============================================================
``zygote``         the single-threaded loop: requests, limits, stderr, reports
``queue``          the order of the waiting runs, within the limits of their classes
``nursery``        forking, several at a time, and the spares
``children``       deadlines, stopping, reaping
``child``          the fork, and what a forked child does
``works``          what it has to do: one job, or a rehearsal and then one
``work``           running one job's code, wherever its process came from
``importing``      what the zygote does about imported modules
``outbox``         reports on their way to a program that may be slow or gone
``stderr``         the jobs' stderr: its tail, and passing it on without blocking
``naming``         ``multiprocessing.current_process().name``
``main_module``    finding and importing job classes, also those of a script
``wire``           the messages, and how values travel
=================  ==============================================================

What ``zygote`` needs of these is loaded into every job's process. It imports modules written
in C only (``tests/package/test_architecture.py`` holds the list): each megabyte that
the zygote holds costs every job 16 µs at its fork and 16 µs at its exit.
"""
