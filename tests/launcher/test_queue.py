from __future__ import annotations

import random
from collections import Counter

import pytest

from job_scheduler.launcher.queue import Assignment, JobClass, Queue, Waiting
from tests.sample_jobs import Noop


def waiting(run_id, of):
    return Waiting(Assignment(run_id, "Noop", Noop, None, b"", None), of, None)


@pytest.fixture
def queue():
    queue = Queue()
    for class_id, limit in enumerate((None, 1, 2)):
        queue.add_class(JobClass(class_id, Noop, limit, None))
    return queue


def start(queue):
    """Take the next run as started; its id, or None."""
    if not queue.ready:
        return None
    taken = queue.next()
    queue.one_started(taken.of)
    return taken.assignment.run_id


def test_oldest_first(queue):
    free = queue.job_class(0)
    for n in range(5):
        queue.add(waiting(str(n), free))
    assert [start(queue) for _ in range(6)] == ["0", "1", "2", "3", "4", None]


def test_a_class_at_its_limit_is_passed_over_until_one_ends(queue):
    free, single = queue.job_class(0), queue.job_class(1)
    for run_id, of in [("a", single), ("b", single), ("c", single), ("d", free)]:
        queue.add(waiting(run_id, of))
    assert [start(queue), start(queue), start(queue)] == ["a", "d", None]
    queue.add(waiting("e", free))
    queue.one_ended(single)
    assert [start(queue), start(queue), start(queue)] == ["b", "e", None]
    queue.one_ended(single)
    assert start(queue) == "c"


def test_one_that_could_not_start_stays_first(queue):
    free = queue.job_class(0)
    for n in range(3):
        queue.add(waiting(str(n), free))
    queue.put_back(queue.next())
    assert [start(queue) for _ in range(3)] == ["0", "1", "2"]


def test_any_waiting_run_can_be_taken_out(queue):
    single = queue.job_class(1)
    for n in range(4):
        queue.add(waiting(str(n), single))
    assert start(queue) == "0"
    assert start(queue) is None
    assert queue.take("2").assignment.run_id == "2"
    assert queue.take("2") is None
    assert queue.take("0") is None
    assert [each.assignment.run_id for each in queue.take_all()] == ["1", "3"]
    assert queue.take_all() == []


@pytest.mark.parametrize("seed", range(50))
def test_against_a_naive_model(queue, seed):
    """Whatever happens in whatever order: limits hold, nothing is lost, classes keep the order."""
    chance = random.Random(seed)
    limits = {0: None, 1: 1, 2: 2}
    model, running = [], Counter()
    for n in range(300):
        action = chance.random()
        if action < 0.4:
            class_id = chance.randrange(3)
            queue.add(waiting(f"{class_id}:{n}", queue.job_class(class_id)))
            model.append(f"{class_id}:{n}")
        elif action < 0.5 and model:
            run_id = chance.choice(model)
            model.remove(run_id)
            assert queue.take(run_id).assignment.run_id == run_id
        elif action < 0.7 and running.total():
            class_id = chance.choice(list(running.elements()))
            running[class_id] -= 1
            queue.one_ended(queue.job_class(class_id))
        else:
            free = [
                run_id
                for run_id in model
                if limits[int(run_id[0])] is None
                or running[int(run_id[0])] < limits[int(run_id[0])]
            ]
            run_id = start(queue)
            assert (run_id is None) == (not free)
            if run_id is not None:
                assert run_id == free[0]
                model.remove(run_id)
                running[int(run_id[0])] += 1
    assert {each.assignment.run_id for each in queue.take_all()} == set(model)
