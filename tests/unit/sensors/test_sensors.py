"""What a sensor requests, and when it waits."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from sensors import arrivals, due_steps, failures, membership, warm_process
from sensors.job_state import JobState, read_job_state
from upnext.alerts import Alert

NOW = datetime(2026, 4, 1, tzinfo=UTC)
IDLE = JobState(is_busy=False, failed_at=None)
BUSY = JobState(is_busy=True, failed_at=None)


def test_new_files_start_a_tick() -> None:
    request = arrivals.decide(arrived=1, loaded=0, state=IDLE, now=NOW)
    assert isinstance(request, dg.RunRequest)
    assert "upnext/as_of" not in request.tags
    assert request.run_key is None


def test_without_new_files_nothing_starts() -> None:
    assert isinstance(arrivals.decide(arrived=0, loaded=0, state=IDLE, now=NOW), dg.SkipReason)


def test_what_a_failed_tick_has_loaded_starts_another() -> None:
    assert isinstance(arrivals.decide(arrived=0, loaded=1, state=IDLE, now=NOW), dg.RunRequest)
    assert isinstance(arrivals.decide(arrived=0, loaded=0, has_lines=True, state=IDLE, now=NOW), dg.RunRequest)
    left = arrivals.decide(arrived=0, loaded=0, has_lines=True, state=IDLE, now=NOW, is_live=True)
    assert isinstance(left, dg.SkipReason)
    assert isinstance(arrivals.decide(arrived=1, loaded=0, state=IDLE, now=NOW, is_live=True), dg.RunRequest)
    assert isinstance(arrivals.decide(arrived=0, loaded=1, state=IDLE, now=NOW, is_live=True), dg.RunRequest)
    its_own = arrivals.decide(arrived=0, loaded=1, state=IDLE, now=NOW, is_live=True, is_ticking=True)
    assert isinstance(its_own, dg.SkipReason)


def test_the_first_of_several_failures_is_told() -> None:
    values: dict[str, Any] = {"job": "tick", "words": "segment 'x' reads 'y', which does not exist"}
    told = failures.decide(failed=["r-1"], told=None, **values)
    assert isinstance(told, Alert)
    assert (told.subject, values["words"] in told.text) == ("Upnext: tick failed", True)
    assert isinstance(failures.decide(failed=["r-2", "r-1"], told="r-1", **values), dg.SkipReason)
    assert isinstance(failures.decide(failed=["r-2", "r-1"], told=None, **values), Alert), "the first was not delivered"
    assert isinstance(failures.decide(failed=["r-9"], told="r-2", **values), Alert), "it was well in between"


def test_of_two_quick_failures_the_first_is_told() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for run_id, status in (("a", "SUCCESS"), ("b", "FAILURE"), ("c", "FAILURE")):
            instance.add_run(dg.DagsterRun("tick", run_id=run_id, status=dg.DagsterRunStatus(status)))
        assert [read_job_state(instance, "tick", at_run=run_id).failed for run_id in "abc"] == [(), ("b",), ("c", "b")]
        assert read_job_state(instance, "tick").failed == ("c", "b")
        assert failures.told(instance, "tick") is None
        failures.remember(instance, "tick", "b")
        assert (failures.told(instance, "tick"), failures.told(instance, "dispatch")) == ("b", None)


@pytest.mark.parametrize(("record", "was_well"), [
    (SimpleNamespace(start_time=0.0, end_time=60.0), False), (SimpleNamespace(start_time=0.0, end_time=3300.0), True),
    (SimpleNamespace(start_time=None, end_time=3300.0), False), (None, False),
])  # fmt: skip
def test_a_run_that_worked_for_long_was_well(record: Any, was_well: bool) -> None:
    instance: Any = SimpleNamespace(get_run_record_by_id=lambda _: record)
    assert failures.was_well(instance, "a") is was_well


def test_a_run_that_somebody_ended_is_not_started_again_at_once() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_run(dg.DagsterRun("tick", run_id="a", status=dg.DagsterRunStatus.CANCELED))
        assert read_job_state(instance, "tick").failed == ("a",)


def test_a_tick_at_work_is_waited_for() -> None:
    assert isinstance(arrivals.decide(arrived=1, loaded=0, state=BUSY, now=NOW), dg.SkipReason)


@pytest.mark.parametrize(("failures", "seconds"), [(1, 15), (2, 30), (3, 60), (5, 240), (6, 300), (9, 300)])
def test_a_failure_is_tried_again_soon_and_then_less_and_less_often(failures: int, seconds: int) -> None:
    def after(passed: int) -> JobState:
        failed = tuple(f"r-{nth}" for nth in range(failures))
        return JobState(is_busy=False, failed_at=NOW - timedelta(seconds=passed), failed=failed)

    assert isinstance(arrivals.decide(arrived=1, loaded=0, state=after(seconds - 1), now=NOW), dg.SkipReason)
    assert isinstance(arrivals.decide(arrived=1, loaded=0, state=after(seconds), now=NOW), dg.RunRequest)


def test_membership_changes_start_those_concerned_only() -> None:
    request = membership.decide(waiting={"journey:earn_upgrade", "experiences"}, state=IDLE, now=NOW)
    assert isinstance(request, dg.RunRequest)
    assert request.asset_selection == [
        dg.AssetKey(["experiences", "assignments"]),
        dg.AssetKey(["journeys", "earn_upgrade"]),
        dg.AssetKey(["experiences", "live_ctas"]),
    ]
    assert "upnext/as_of" not in request.tags
    left = membership.decide(waiting={"experiences"}, state=IDLE, now=NOW, is_at_work=True)
    assert isinstance(left, dg.SkipReason)
    assert isinstance(membership.decide(waiting=set(), state=IDLE, now=NOW), dg.SkipReason)
    assert isinstance(membership.decide(waiting={"experiences"}, state=BUSY, now=NOW), dg.SkipReason)


def test_due_steps_start_their_journeys() -> None:
    request = due_steps.decide(journeys={"earn_upgrade"}, state=IDLE, now=NOW)
    assert isinstance(request, dg.RunRequest)
    assert request.asset_selection == [
        dg.AssetKey(["journeys", "earn_upgrade"]),
        dg.AssetKey(["experiences", "live_ctas"]),
    ]
    assert isinstance(due_steps.decide(journeys=set(), state=IDLE, now=NOW), dg.SkipReason)
    left = due_steps.decide(journeys={"earn_upgrade"}, state=IDLE, now=NOW, is_live=True)
    assert isinstance(left, dg.SkipReason)


def test_one_warm_process_is_kept_at_work() -> None:
    assert isinstance(warm_process.decide(is_live=False, waits=None), dg.RunRequest)
    assert isinstance(warm_process.decide(is_live=True, waits=None), dg.SkipReason)
    assert isinstance(warm_process.decide(is_live=False, waits="a run is at work"), dg.SkipReason)
