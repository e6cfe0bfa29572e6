"""Lists of ids and shares at chance, in segments."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.conftest import AS_OF, Product, rows
from upnext.errors import UpnextError
from upnext.loop import build
from upnext.operations.checks import check
from upnext.operations.previews import preview_segment
from upnext.project import Project
from upnext.segments.lists import read_list, store_lists

HOUR = timedelta(hours=1)
pytestmark = pytest.mark.usefixtures("content")


def write_list(content: Path, name: str, text: str) -> Path:
    path = content / "lists" / f"{name}.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def write_segment(content: Path, name: str, condition: str) -> None:
    select = f"select user_id from {{{{ ref('user_features') }}}} where {condition}"
    (content / "models" / "segments" / f"{name}.sql").write_text(select)


def members(project: Project, segment: str) -> list[str]:
    return [user for (user,) in rows(project, f"select user_id from segments.{segment} order by 1")]


def test_a_segment_follows_a_list_and_evaluates_everybody_only_where_it_has_changed(
    content: Path, project: Project, product: Product
) -> None:
    path = write_list(content, "beta_testers", '\ufeffname,user_id\r\nAnn,ann\r\nAnn,ann\r\n"Bo, b",bob\r\n')
    write_segment(content, "testers", "user_id in {{ list('beta_testers') }} and logins_30d >= 1")
    write_segment(content, "others", "not user_id in {{ list('beta_testers') }} and logins_30d >= 1")
    assert "testers" in project.row_local_segments
    assert check(project)["lists"] == 1
    for user in ("ann", "bob", "cid"):
        product.track(user, "login", AS_OF)
    build(project, AS_OF, is_explicit=True)
    assert (members(project, "testers"), members(project, "others")) == (["ann", "bob"], ["cid"])

    path.write_text("user_id\nbob\ncid\nnobody\n")
    before = rows(project, "select list, id from segments.lists order by 2")
    assert preview_segment(project, "testers", with_ids=False).size == 2
    assert rows(project, "select list, id from segments.lists order by 2") == before, "a preview changes nothing"
    build(project, AS_OF + HOUR, is_explicit=True)
    assert (members(project, "testers"), members(project, "others")) == (["bob", "cid"], ["ann"])
    build(project, AS_OF + 2 * HOUR, is_explicit=True)
    looked_at = "select looked_at from segments.evaluations where segment = 'testers' order by tick_id"
    assert rows(project, looked_at) == [(3,), (3,), (0,)]

    path.unlink()
    with pytest.raises(UpnextError, match=r"others.sql:1: segment 'others' reads the list 'beta_testers', but there"):
        project.check()


def test_a_share_is_stable_and_of_each_segment_alone(content: Path, project: Project, product: Product) -> None:
    write_segment(content, "tenth", "{{ share(user_id, 10) }}")
    write_segment(content, "other_tenth", "{{ share(user_id, 10) }}")
    write_segment(content, "wave", "{{ share(user_id, 40, 'rollout') }}")
    write_segment(content, "rest", "not {{ share(user_id, 40, 'rollout') }}")
    assert {"tenth", "rest"} <= set(project.row_local_segments)
    for nth in range(300):
        product.track(f"user-{nth}", "login", AS_OF)
    build(project, AS_OF, is_explicit=True)
    drawn = {name: set(members(project, name)) for name in ("tenth", "other_tenth", "wave", "rest")}
    assert 15 <= len(drawn["tenth"]) <= 45
    assert drawn["tenth"] != drawn["other_tenth"]
    assert not drawn["wave"] & drawn["rest"]
    assert len(drawn["wave"] | drawn["rest"]) == 300
    found = preview_segment(project, "tenth", with_ids=False)
    assert (found.size, found.entering, found.leaving) == (len(drawn["tenth"]), 0, 0), "a preview draws the same ones"
    product.track("user-0", "login", AS_OF)
    build(project, AS_OF + HOUR, is_explicit=True)
    assert {name: set(members(project, name)) for name in drawn} == drawn


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: the first line must name one column user_id"),
        ("id\nann\n", ":1: the first line must name one column user_id"),
        ("user_id,account_id\nann,acme\n", ":1: the first line must name one column user_id"),
        ("user_id\nann\n \nbob\n", ":3: no user_id of 1 to 1000 characters"),
        ("name,user_id\nann\n", ":2: no user_id of 1 to 1000 characters"),
        ("user_id\n" + "x" * 1001, ":2: no user_id of 1 to 1000 characters"),
        ('user_id\n"ann\n', ": not valid CSV"),
    ],
)  # fmt: skip
def test_a_bad_list_is_told_with_its_line_and_changes_nothing(
    content: Path, project: Project, text: str, message: str
) -> None:
    good = write_list(content, "good", "user_id\nann\n")
    store_lists(project.engine, project.lists)
    bad = write_list(content, "z_bad", text)
    good.write_text("user_id\nbob\n")
    with pytest.raises(UpnextError) as raised:
        list(read_list(bad))
    assert message in str(raised.value)
    with pytest.raises(UpnextError):
        build(project, AS_OF, is_explicit=True)
    assert rows(project, "select * from segments.lists") == [("good", "ann")]


def test_a_list_that_is_not_text_or_has_no_name_is_told(content: Path, project: Project) -> None:
    path = write_list(content, "latin", "")
    path.write_bytes("user_id\nJosé\n".encode("latin-1"))
    with pytest.raises(UpnextError, match=r"latin.csv: not valid UTF-8"):
        check(project)
    path.rename(path.with_name("Beta testers.csv"))
    with pytest.raises(UpnextError, match="the file's name is the name in SQL"):
        check(project)
