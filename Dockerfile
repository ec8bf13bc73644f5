# The service: REST and a dashboard on port 8000, jobs and runs in an SQLite file on the volume /data.
#
#   docker build --tag job-scheduler .
#   docker run --publish 127.0.0.1:8000:8000 --env JOB_SCHEDULER_API_KEY job-scheduler
#
# Whatever reaches its port could run jobs, so it does not start without a key; docker-compose.yml
# shows when it may.

FROM python:3.13-slim AS build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
# What it depends on first, in a layer that changes of the package's own code leave as it is.
COPY setup.py pyproject.toml README.md LICENSE ./
COPY job_scheduler/__init__.py job_scheduler/
RUN pip install '/src[service,celery]'
COPY job_scheduler job_scheduler
RUN pip install --no-deps --force-reinstall /src

FROM python:3.13-slim
RUN groupadd --gid 10001 scheduler \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /app --shell /usr/sbin/nologin scheduler \
    && install --directory --owner scheduler --group scheduler --mode 0700 /data
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY jobs jobs
COPY examples examples
COPY tests tests
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DATABASE_URL=sqlite:////data/scheduler.db \
    JOB_SCHEDULER_HOST=0.0.0.0 \
    JOB_SCHEDULER_PORT=8000
# By number, so that it can be told from root without looking into the image.
USER 10001:10001
VOLUME /data
EXPOSE 8000
# Not by urllib, which would ask a proxy if there is one in the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, sys; from http.client import HTTPConnection as C; c = C('127.0.0.1', int(os.environ['JOB_SCHEDULER_PORT']), timeout=4); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
CMD ["job-scheduler", "serve"]
