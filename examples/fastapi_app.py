"""An asyncio program whose scheduler lives as long as the application: FastAPI's lifespan.

Run it, sign somebody up, and see the mail leave some seconds later, also if the program was killed
and started again in between::

    uvicorn --app-dir examples fastapi_app:app
    curl -X POST 'http://127.0.0.1:8000/signup?email=ada@example.com'

``STORE`` says where jobs are kept: ``sqlite:///signups.db`` if it is not set, or
``postgresql://user@host/database``, which any number of these programs can share.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI, HTTPException

from job_scheduler import ConflictResolution, JobPriority, Scheduler

STORE = os.environ.get("STORE", "sqlite:///signups.db")
DELAY = timedelta(seconds=float(os.environ.get("DELAY", "5")))


async def send_email(address: str, subject: str) -> None:
    await asyncio.sleep(0.1)  # the mail server's time
    print(f"mail to {address}: {subject}", flush=True)


async def count_signups() -> None:
    print("signups were counted", flush=True)


scheduler = Scheduler(store=STORE, jobs=[send_email, count_signups], max_concurrent_jobs=10)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with scheduler:
        # Each worker process says so; it is one schedule all the same.
        await scheduler.schedule(count_signups, cron="0 3 * * *", timezone="Europe/Berlin")
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/signup", status_code=202)
async def signup(email: str) -> dict[str, str]:
    # The id: who signs up twice gets one mail.
    job_id = await scheduler.schedule(
        send_email,
        execution_time=datetime.now(UTC) + DELAY,
        args=(email, "Welcome!"),
        job_id=f"welcome:{email}",
        priority=JobPriority.HIGH,
        max_retries=3,
        conflict_resolution=ConflictResolution.IGNORE,
    )
    return {"job": job_id}


@app.get("/jobs/{job_id}")
async def job(job_id: str) -> dict[str, Any]:
    found = await scheduler.get_job(job_id)
    if found is None:
        raise HTTPException(404)
    return {"job": job_id, "state": getattr(found, "state", "scheduled")}


@app.delete("/jobs/{job_id}")
async def cancel(job_id: str) -> dict[str, bool]:
    return {"cancelled": await scheduler.cancel_job(job_id)}
