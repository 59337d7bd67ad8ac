"""Recovery is counted from the end of the cause, to the next commit and to that of every busy table."""

from __future__ import annotations

from firn_local.recovery import Recovery, after, busy
from firn_local.special import is_late

COMMITS = [(1.0, "old"), (50.0, "a"), (52.0, "a"), (54.0, "a"), (55.0, "b"), (60.5, "c"), (61.0, "a"), (64.0, "a")]


def test_table_is_busy_if_it_committed_often_of_late():
    assert busy(COMMITS, 60.0) == {"a"}
    assert busy(COMMITS, 90.0) == set()


def test_commits_before_the_end_of_the_cause_do_not_count():
    assert after(COMMITS, 60.0, {"a"}) == (0.5, 1.0)
    assert after(COMMITS, 61.0, {"a"}) == (3.0, 3.0)
    assert after(COMMITS, 60.0, {"a", "b"}) == (0.5, None)
    assert after(COMMITS, 64.0, {"a"}) == (None, None)
    assert after(COMMITS, 60.0, set()) == (0.5, 0.5)


def test_one_late_commit_misses_the_bar():
    recovery = Recovery(10)
    recovery.add("kill", 9.9, 12.0)
    assert recovery.in_time
    recovery.add("kill", 10.1, 12.0)
    assert (recovery.in_time, recovery.faults) == (False, 2)


def test_table_that_is_written_for_a_round_only_is_not_waited_for():
    assert is_late("public__late_1")
    assert not is_late("public__orders")
