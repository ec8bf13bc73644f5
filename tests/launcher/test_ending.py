from __future__ import annotations

import pytest

from job_scheduler.launcher import wire
from job_scheduler.launcher.ending import Facts, judge
from job_scheduler.run import RunError

FAILURE = RunError("ValueError", "bad", "text")


@pytest.mark.parametrize(
    ("facts", "state", "said"),
    [
        (Facts(exitcode=0), "completed", None),
        (Facts(exitcode=0, load_result=list), "completed", None),
        (
            Facts(exitcode=0, load_result=list, reason=wire.CANCELLED),
            "completed",
            None,
        ),
        (Facts(exitcode=0, reason=wire.CANCELLED), "cancelled", "JobCancelled"),
        (Facts(exitcode=-15, reason=wire.CANCELLED), "cancelled", "JobCancelled"),
        (Facts(reason=wire.CANCELLED), "cancelled", "JobCancelled"),
        (
            Facts(exitcode=-9, reason=wire.TIMEOUT, timeout=2.5),
            "failed",
            "JobTimeout: not done after 2.5 s",
        ),
        (
            Facts(reason=wire.NO_PROCESS, stderr="no memory"),
            "failed",
            "JobLost: the system gave it no process: no memory",
        ),
        (Facts(exitcode=1, failure=FAILURE), "failed", "ValueError: bad"),
        (Facts(exitcode=-9, failure=FAILURE), "failed", "ValueError: bad"),
        (
            Facts(exitcode=-9, peak_memory=1_900_000_000, cpu_time=12.34, out_of_memory=True),
            "failed",
            "JobKilled: killed by SIGKILL, 1.9 GB peak, 12.3 s of processor time, probably the "
            "kernel's out-of-memory killer",
        ),
        (
            Facts(exitcode=-9),
            "failed",
            "JobKilled: killed by SIGKILL, sent by itself or by something else than this scheduler",
        ),
        (
            Facts(exitcode=-9, sent_signal=9, out_of_memory=True),
            "failed",
            "JobKilled: killed by SIGKILL, sent by this program",
        ),
        (
            Facts(exitcode=-28, peak_memory=1234),
            "failed",
            "JobKilled: killed by SIGWINCH, 1.2 kB peak, cause unknown",
        ),
        (
            Facts(exitcode=-24, peak_memory=25_000_000),
            "failed",
            "JobKilled: killed by SIGXCPU, 25.0 MB peak, probably its limit of processor time",
        ),
        (Facts(exitcode=-60), "failed", "JobKilled: killed by signal 60"),
        (Facts(exitcode=5), "failed", "JobExited: exited with code 5"),
    ],
)
def test_how_a_run_ended(facts, state, said):
    judged, error = judge(facts)
    assert judged == state
    assert (error is None) == (said is None)
    if said:
        assert str(error).startswith(said)
