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
``wire``           the messages, and how values travel
``client``         the program's side: starts, feeds and if need be replaces a zygote
``zygote``         the single-threaded loop: queue, limits, deadlines, stderr, reaping
``child``          what a forked child does
``main_module``    finding and importing job classes, also those of a script
``spawn``          the fallback: a clean interpreter per job, where fork is no choice
``ending``         from an exit status to the outcome of a run
``process``        the ``multiprocessing.Process`` face of a run
=================  ==============================================================

``wire``, ``zygote``, ``child`` and ``main_module`` are loaded by the zygote. They import
modules written in C only (``tests/test_architecture.py`` holds the list): each megabyte that
the zygote holds costs every job 16 µs at its fork and 16 µs at its exit.
"""
