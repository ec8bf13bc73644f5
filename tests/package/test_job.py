from __future__ import annotations

import pytest

from job_scheduler import Job


class Works(Job):
    def process(self):
        pass


def test_a_class_with_neither_method_makes_no_objects():
    class Empty(Job):
        pass

    with pytest.raises(TypeError, match="Empty defines neither process"):
        Empty()


def test_one_method_is_enough():
    class Runs(Job):
        def run(self):
            pass

    assert Works().core_lib is None
    assert Runs().core_lib is None


def test_core_lib_is_set_and_the_hook_called():
    class Hooked(Works):
        def initialized(self, core_lib):
            self.seen = core_lib

    core = object()
    given = Hooked(core)
    assert given.core_lib is given.seen is core
    later = Hooked()
    assert not hasattr(later, "seen")
    later.set_data_handler(core)
    assert later.core_lib is later.seen is core


def test_a_subclass_need_not_call_super():
    class Own(Works):
        def __init__(self, colour="red"):
            self.colour = colour

    assert Own().core_lib is None
    assert Own("blue").colour == "blue"


def test_the_tiers_of_policy_are_unset_by_default():
    assert (Works.timeout, Works.memory_limit, Works.max_running, Works.executor) == (None,) * 4
