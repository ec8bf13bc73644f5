"""The benchmark of the service, as a package.

Three kinds of processes, each with its modules. The controller, which is ``service.py``::

    rounds    what is asked of which server, round after round
    servers   starts a server in a folder of its own, and ends it
    filling   puts jobs and runs into a store, as a service that has run for a while has them
    tables    the figures as text

The client, which is ``client`` as a program: it asks as fast as it is answered. And the servers:
``python -m job_scheduler.service`` with the folder ``job_types``, and ``trivial``, an application
that does nothing, served by the same uvicorn.
"""
