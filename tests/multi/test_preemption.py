"""SIGTERM to one process of several ends all of them after the same step, wherever a resumed loop begins."""

from tests.multi.launch import launch


def test_a_resumed_loop_is_told_though_the_signal_came_before_its_first_step():
    assert launch("preemption_worker", 1000, 1005, processes=2, timeout=100) == [1000, 1000]
