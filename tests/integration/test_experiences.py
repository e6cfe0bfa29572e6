"""Assignments, what a site shows, and the results of it all."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from assets.experiences.definition import bucket
from orchestration.stages import Platform, analyse_results, assign_experiences, build, tick
from tests.conftest import AS_OF, Product, rows

DAY = timedelta(days=1)


@pytest.mark.oldest_server
def test_sql_and_python_draw_alike(platform: Platform) -> None:
    names = [f"user {number} é'\\" for number in range(5000)]
    with platform.engine.connect() as connection:
        drawn = connection.scalars(
            sa.text(
                "select upnext.bucket('experience:x', name)"
                " from unnest(cast(:names as text[])) with ordinality as given (name, nth) order by nth"
            ),
            {"names": names},
        ).all()
    assert drawn == [bucket("experience:x", name) for name in names]


def test_members_are_assigned_once_and_for_good(platform: Platform, product: Product) -> None:
    for number in range(20):
        product.power_user(f"u{number}", AS_OF)
    build(platform, AS_OF, is_explicit=True)
    assert assign_experiences(platform, AS_OF) == 40
    assert assign_experiences(platform, AS_OF) == 0
    drawn = rows(platform, "select user_id, variant from experiences.assignments where experience = 'upgrade_banner'")
    for user_id, variant in drawn:
        expected = "control" if bucket("experience:upgrade_banner", user_id) < 0.5 else "unlock"
        assert variant == expected
    with platform.engine.begin() as connection:
        connection.execute(sa.text("update experiences.assignments set variant = 'kept'"))
    assert assign_experiences(platform, AS_OF + DAY) == 0


def test_control_holds_its_slot_without_copy(platform: Platform, product: Product) -> None:
    for number in range(20):
        product.power_user(f"u{number}", AS_OF)
    build(platform, AS_OF, is_explicit=True)
    assign_experiences(platform, AS_OF)
    shown = rows(platform, "select variant, copy, url from experiences.live_ctas where source = 'upgrade_banner'")
    assert len(shown) == 20
    assert set(shown) == {
        ("control", None, None),
        ("unlock", "Upgrade to unlock team workflows and advanced reports", "https://otto.example/upgrade"),
    }
    product.track("u0", "subscribed to premium plan", AS_OF + DAY)
    build(platform, AS_OF + DAY, is_explicit=True)
    assert rows(platform, "select count(*) from experiences.live_ctas where user_id = 'u0'") == [(0,)]
    assert rows(platform, "select count(*) from experiences.assignments where user_id = 'u0'") == [(2,)]


@pytest.mark.oldest_server
def test_results_count_exposed_users_whose_window_is_over(platform: Platform, product: Product) -> None:
    for number in range(200):
        product.power_user(f"u{number:03d}", AS_OF)
    build(platform, AS_OF, is_explicit=True)
    assign_experiences(platform, AS_OF)
    drawn = rows(
        platform,
        "select user_id, variant from experiences.assignments where experience = 'upgrade_banner' order by user_id",
    )
    expected = {"control": [0, 0], "unlock": [0, 0]}
    for position, (user_id, variant) in enumerate(drawn):
        seen = {"experience": "upgrade_banner", "variant": variant}
        late = position % 10 == 0
        exposed_at = AS_OF + DAY + (5 * DAY if late else timedelta(0))
        product.track(user_id, "experience viewed", exposed_at, times=2, properties=seen)
        converts = position % (2 if variant == "unlock" else 5) == 1
        if converts:
            product.track(user_id, "subscribed to premium plan", exposed_at + 7 * DAY)
        elif position % 7 == 3:
            product.track(user_id, "subscribed to premium plan", exposed_at + 7 * DAY + timedelta(microseconds=1))
        elif position % 7 == 4:
            product.track(user_id, "subscribed to premium plan", exposed_at)
        if not late:
            expected[variant][0] += 1
            expected[variant][1] += converts
    tick(platform, AS_OF + 8 * DAY + timedelta(minutes=1))
    found = rows(
        platform,
        "select n_control, mean_control, n_arm, mean_arm, p_value, srm_p from analytics.experiment_results"
        " where experiment = 'upgrade_banner' and metric = 'goal'",
    )
    (n_control, mean_control, n_arm, mean_arm, p_value, srm_p), = found  # fmt: skip
    assert (n_control, round(mean_control * n_control)) == tuple(expected["control"])
    assert (n_arm, round(mean_arm * n_arm)) == tuple(expected["unlock"])
    assert 0 < p_value < 0.05
    assert srm_p > 0.001


def test_an_analysis_can_be_run_again(platform: Platform) -> None:
    tick(platform, AS_OF)
    first = rows(platform, "select * from analytics.journey_funnel order by journey, step")
    analyse_results(platform, AS_OF)
    assert rows(platform, "select * from analytics.journey_funnel order by journey, step") == first
    assert len(first) == 6


def test_by_a_merge_the_earliest_assignment_stands(platform: Platform, product: Product) -> None:
    product.identify("old", AS_OF - DAY)
    product.identify("new", AS_OF - DAY)
    build(platform, AS_OF, is_explicit=True)
    assign_experiences(platform, AS_OF)
    with platform.engine.begin() as connection:
        for user_id, variant, at in (("new", "unlock", AS_OF), ("old", "control", AS_OF - DAY)):
            connection.execute(
                sa.text("insert into experiences.assignments values ('upgrade_banner', :user_id, :variant, :at)"),
                {"user_id": user_id, "variant": variant, "at": at},
            )
    product.store("alias", AS_OF, user_id="new", previous_id="old")
    build(platform, AS_OF, is_explicit=True)
    for _ in range(2):
        assert assign_experiences(platform, AS_OF) == 0
        assert rows(
            platform,
            "select variant, assigned_at, is_in_both_arms from experiences.assignments where user_id = 'new'",
        ) == [("control", AS_OF - DAY, True)]
