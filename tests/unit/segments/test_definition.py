"""What a segment's file may hold, and the mistakes that are told with their line."""

from pathlib import Path

import pytest

from upnext.declarations import Problem
from upnext.errors import UpnextError
from upnext.segments.declared import check_segments, segment_files
from upnext.segments.definition import condition_of, find_cycle, find_mistakes, is_row_local, references

KNOWN = {"user_features", "account_features", "active", "curious"}
COUNTS = {"logins_30d"}
COLUMNS = {"user_features": {"user_id", "logins_30d", "reports_30d", "plan", "balance", "last_login_at",
                             "last_object_created_at"}}  # fmt: skip
FEATURES = "select user_id\nfrom {{ ref('user_features') }}\n"


def mistakes(sql: str) -> list[Problem]:
    return list(find_mistakes(sql, known=KNOWN, columns=COLUMNS, counts=COUNTS, lists={"testers"}))


@pytest.mark.parametrize(
    "sql",
    [
        FEATURES + "where logins_30d >= 1",
        "-- now() is the word\n" + FEATURES + "where plan = 'now()' /* random() */",
        FEATURES + "where user_id in {{ list('testers') }} and not {{ share(user_id, 12.5) }}",
        "select account_id from {{ ref('account_features') }} where {{ share('account_id', 10, 'wave') }}",
        FEATURES + "where user_id in (select user_id from {{ ref('active') }}) and balance >= 0",
        FEATURES + "order by logins_30d desc limit 100",
        f"with final as ({FEATURES}where logins_30d > 2)\nselect * from final",
        "SELECT A.USER_ID FROM {{ ref('active') }} A WHERE A.USER_ID::text <> 'today'::text",
        "select (user_id) from {{ ref('user_features') }} where plan between 'today' and 'z'",
        FEATURES + "where plan = 'today' and age(last_login_at, last_object_created_at) > interval '1 day'",
        FEATURES + "where logins_30d >= 0.5 or logins_30d > 0",
        "{{ config(meta={'owner': 'growth'}) }}\n" + FEATURES + "where not (logins_30d >= 10)",
    ],
)
def test_what_is_right(sql: str) -> None:
    assert mistakes(sql) == []


@pytest.mark.parametrize(
    ("sql", "line", "message"),
    [
        ("", 1, "holds no SELECT"),
        ("select user_id from {{ ref('user_featurs') }} where x", 1, "reads 'user_featurs', which does not exist"),
        (FEATURES + "where user_id in (select\n user_id from {{ ref('activ') }})", 4, "reads 'activ', which"),
        (FEATURES, 1, "has no condition, so everyone would be in it"),
        (FEATURES + "where true", 3, "has a condition that is always true"),
        (FEATURES + "where 1 = 1", 3, "has a condition that is always true"),
        (FEATURES + "where\n    logins_30d >= 0", 4, "'logins_30d >= 0' is always true: logins_30d is never negative"),
        (FEATURES + "where logins_30d > -1", 3, "'logins_30d > -1' is always true"),
        (FEATURES + "where last_login_at < now() - interval '1 day'", 3, "asks now; a segment changes"),
        (FEATURES + "where last_login_at < current_date", 3, "asks current_date"),
        (FEATURES + "where last_login_at < {{ as_of() }}", 3, "asks as_of"),
        (FEATURES + "where random() < 0.1", 3, "asks random"),
        (FEATURES + "where last_login_at >\n 'now'::timestamptz - interval '1 day'", 4, "asks 'now'"),
        (FEATURES + "where last_login_at > 'Yesterday'", 3, "asks 'Yesterday'"),
        (FEATURES + "where age(last_login_at) > interval '1 day'", 3, "asks age() of today"),
        (FEATURES + "where user_id in {{ list('tester') }}", 3, "reads the list 'tester', but there is no"),
        (FEATURES + "where user_id in {{ list() }}", 3, "calls list() in another form than {{ list('beta_testers') }}"),
        (FEATURES + "where {{ share(user_id) }}", 3, "calls share() in another form than {{ share(user_id, 10) }}"),
        (FEATURES + "where {{ share(email, 10) }}", 3, "takes a share of 'email'; it must be user_id or account_id"),
        (FEATURES + "where {{ share(user_id, 0) }}", 3, "takes a share that is not above 0 and below 100 percent"),
        (FEATURES + "where {{ share(user_id, '10') }}", 3, "takes a share that is not above 0 and below 100 percent"),
        (FEATURES + "where {{ share(account_id, 10) }}", 3, "has Jinja that cannot be read: account_id needs quotes"),
        ("select user_id from {{ source('raw', 'events') }} where x", 1, "reads a source; a segment reads features"),
        (FEATURES + "where not (1 = 2)", 3, "has a condition that is always true"),
        (FEATURES + "where {{ ref('a' }}", 3, "has Jinja that cannot be read: "),
        ("{{ config(meta=mine) }}\n" + FEATURES + "where x", 1, "has Jinja that cannot be read: the meta of config()"),
        (FEATURES + "where a = 'x", 1, "cannot be read as SQL"),
        ("{{ config(meta={'limit': {'change': 'half'}}) }}\n" + FEATURES + "where x", 1, "has a wrong meta: 'change'"),
        ("{{ config(meta={'ownr': 'me'}) }}\n" + FEATURES + "where x", 1, "has a wrong meta: unknown key 'ownr'"),
        ("select user_id\nfrom active, raw.events where x", 2, "reads raw.events"),
        (FEATURES + "where plan = 'x'\nand logins_31d >= 1", 4, "reads 'logins_31d', which user_features"),
        (FEATURES + "where {{ shar(user_id, 10) }}", 3, "calls shar(), which does not exist; did you mean 'share'?"),
        ("select user_id\nfrom raw.events where x", 2, "reads raw.events; a segment reads features and segments"),
    ],
)  # fmt: skip
def test_what_is_wrong(sql: str, line: int, message: str) -> None:
    [(found_line, found), *_] = mistakes(sql)
    assert (found_line, found[: len(message)]) == (line, message)


@pytest.mark.parametrize(
    "jinja", ["{{ ref(var('x')) }}", "{{ ref() }}", "{{ this }}", "{{ some_macro(1) }}", "{{ ref }}"]
)
def test_what_only_dbt_knows_is_left_to_dbt(jinja: str) -> None:
    text = f"select user_id from {{{{ ref('user_features') }}}} where logins_30d >= 1 and {jinja} is null"
    assert mistakes(text) == []
    assert not is_row_local(text, segments=[])


def test_references_are_those_of_the_text_that_dbt_reads() -> None:
    text = "{# {{ ref('old') }} #}\nselect 1 from {{ ref('a') }} where x in (select 1 from {{ ref( \"b\" ) }})"
    assert references(text) == ["a", "b"]
    assert references("-- {{ ref('old') }}\nselect 1") == ["old"], "dbt reads the Jinja of SQL's comments"


def test_circles() -> None:
    assert find_cycle({"a": ["b"], "b": ["c"], "c": []}) is None
    assert find_cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert find_cycle({"a": ["a"]}) == ["a", "a"]


def test_the_file_is_named(tmp_path: Path) -> None:
    files = {}
    for name, other in (("one", "two"), ("two", "one")):
        files[name] = tmp_path / f"{name}.sql"
        files[name].write_text(f"select user_id from {{{{ ref('{other}') }}}} where x")
    with pytest.raises(UpnextError, match=r"one.sql: segments are built on each other in a circle: one -> two -> one"):
        check_segments(files, known=(), columns={}, never_negative=(), lists=(), folders=(), others=())
    files["one"].write_text("select user_id from {{ ref('thre') }} where x")
    with pytest.raises(UpnextError, match=r"one.sql:1: segment 'one' reads 'thre', which does not exist"):
        check_segments(files, known=(), columns={}, never_negative=(), lists=(), folders=(), others=())


FEATURES = "{{ ref('user_features') }}"
OTHER = "{{ ref('other') }}"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (f"select user_id from {FEATURES} where logins >= 5 and not is_paying", True),
        (f"select features.user_id from {FEATURES} as features where features.logins >= 5", True),
        (f"select user_id from {FEATURES}\nwhere plan in ('a', 'b') -- limit 5\n  and age::numeric > 20", True),
        (f"{{{{ config(meta={{'owner': 'me'}}) }}}} select user_id from {FEATURES} where logins between 1 and 5", True),
        ("select account_id from {{ ref('account_features') }} where members > 3", True),
        (f"select user_id from {FEATURES} where user_id in (select user_id from {OTHER}) and logins > 1", True),
        (f"select user_id from {FEATURES} where user_id not in (select user_id from {OTHER})", True),
        (f"select user_id from {FEATURES} where (case when logins > 1 then plan else 'x' end) = 'x'", True),
        # Another user's membership decides.
        (f"select user_id from {FEATURES} where referrer in (select user_id from {OTHER})", False),
        (f"select user_id from {FEATURES} where exists (select user_id from {OTHER})", False),
        (f"select user_id from {FEATURES} where user_id in (select user_id from {OTHER} where user_id > 'm')", False),
        (f"select user_id from {FEATURES} where user_id in (select user_id from {OTHER} limit 3)", False),
        (f"select user_id from {FEATURES} where user_id in (select user_id from partners)", False),
        # Other rows decide.
        (f"select user_id from {FEATURES} where logins > 1 limit 5", False),
        (f"select user_id from {FEATURES} where logins > 1 order by logins fetch first 2 rows only", False),
        (f"select distinct user_id from {FEATURES} where logins > 1", False),
        (f"select user_id from {FEATURES} where logins > 1 group by user_id", False),
        (f"select user_id from {FEATURES}, {FEATURES} as others where others.logins > 1", False),
        (f"select user_id from {FEATURES} join {OTHER} using (user_id) where logins > 1", False),
        (f"select user_id from {FEATURES} where logins > (select avg(logins) from {FEATURES})", False),
        (f"select user_id from {FEATURES} tablesample system (10) where logins > 1", False),
        (f"with a as (select * from {FEATURES}) select user_id from a where logins > 1", False),
        (f"select user_id from {FEATURES} where a > 1 union select user_id from {FEATURES} where b > 1", False),
        (f"select user_id from (select * from {FEATURES} limit 5) as five where logins > 1", False),
        ("select user_id from {{ ref('my_view') }} where logins > 1", False),
        (f"select user_id, logins from {FEATURES} where logins > 1", False),
        (f"{{% if true %}} select user_id from {FEATURES} where logins > 1 {{% endif %}}", False),
        (f"select user_id from {FEATURES} where (((", False),
    ],
)  # fmt: skip
def test_whether_one_row_decides(sql: str, expected: bool) -> None:
    assert is_row_local(sql, segments={"other", "mine"}) is expected


@pytest.mark.parametrize(
    ("sql", "condition"),
    [
        (f"select user_id from {FEATURES} where logins >= 5", "logins >= 5"),
        (f"select user_id from {FEATURES}\nwhere a = 'where' -- or b\n", "a = 'where' -- or b"),
        (f"{{{{ config(meta={{'owner': 'x'}}) }}}}select user_id from {FEATURES} where a or b", "a or b"),
        ("select account_id from {{ ref('account_features') }} where members > 1", "members > 1"),
        (f"select user_id from {FEATURES}", None),
        (f"select user_id from {FEATURES} as f where f.logins >= 5", None),
        (f"select user_id from {FEATURES} where user_id in (select user_id from {OTHER})", None),
        (f"select user_id from {FEATURES} where user_id in {{{{ list('testers') }}}}", None),
        (f"select user_id from {FEATURES} where {{{{ share(user_id, 10) }}}}", None),
        (f"select user_id from {FEATURES} where logins >= 5 limit 3", None),
        (f"select user_id from {FEATURES} where (((", None),
        ("select user_id from {{ ref( where", None),
    ],
)  # fmt: skip
def test_which_conditions_are_evaluated_together(sql: str, condition: str | None) -> None:
    found = condition_of(sql, excludes_visitors=False)
    assert (found and found.sql) == condition


def test_a_condition_excludes_visitors_of_users_alone() -> None:
    of_users = condition_of(f"select user_id from {FEATURES} where a -- b", excludes_visitors=True)
    of_accounts = condition_of("select account_id from {{ ref('account_features') }} where a", excludes_visitors=True)
    assert of_users is not None and of_accounts is not None
    assert of_users.sql == "(a -- b\n) and not upnext.is_visitor(user_id)"
    assert of_accounts.sql == "a"
    other = condition_of(f"select user_id from {FEATURES} where a -- b", excludes_visitors=False)
    assert other is not None and other.text_hash != of_users.text_hash


def test_the_description_of_a_segment_is_checked_with_its_line(tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    folder.mkdir()
    (folder / "one.sql").write_text("select user_id from {{ ref('user_features') }} where x")
    described = folder / "_segments.yml"
    meta = "{owner: growth, priority: 20, limit: {change: 50%, hold: true}}"
    described.write_text(f"models:\n  - name: one\n    config:\n      meta: {meta}\n")
    files = {"one": folder / "one.sql"}
    check_segments(files, known=KNOWN, columns={}, never_negative=(), lists=(), folders=(), others=())
    for old, new, message in (
        ("priority: 20", "priority: high", "'priority' is 'high'; it must be a whole number"),
        ("50%", "half", "'change' is 'half'; it must be a share such as 50%"),
        ("hold:", "holds:", "unknown key 'holds'; did you mean 'hold'"),
    ):
        described.write_text(f"models:\n  - name: one\n    config:\n      meta: {meta.replace(old, new)}\n")
        with pytest.raises(UpnextError, match=f"_segments.yml:4: {message}"):
            check_segments(files, known=KNOWN, columns={}, never_negative=(), lists=(), folders=(), others=())
    described.write_text("models:\n  - name: one\n  - name: oen\n    config: {meta: {priority: 1}}\n")
    with pytest.raises(UpnextError, match=r"_segments.yml:3: unknown segment 'oen'; did you mean 'one'"):
        check_segments(files, known=KNOWN, columns={}, never_negative=(), lists=(), folders=(), others=())
    described.write_text("models:\n  - name: one\n  - name: one\n    config: {meta: {priority: 1}}\n")
    with pytest.raises(UpnextError, match=r"_segments.yml:3: segment 'one' stands here twice"):
        check_segments(files, known=KNOWN, columns={}, never_negative=(), lists=(), folders=(), others=())


@pytest.mark.parametrize("option", ["materialized: view", "enabled: false", "schema: mine"])
def test_how_a_segment_is_built_is_not_for_its_description(tmp_path: Path, option: str) -> None:
    key, _, value = option.partition(": ")
    folder = tmp_path / "segments"
    folder.mkdir()
    files = {"one": folder / "one.sql"}
    files["one"].write_text("select user_id from {{ ref('user_features') }} where x")
    described = folder / "_segments.yml"
    described.write_text(f"models:\n  - name: one\n    config:\n      {option}\n")
    with pytest.raises(UpnextError, match=f"_segments.yml:4: unknown key '{key}'"):
        check_segments(files, known=KNOWN, columns={}, never_negative=(), lists=(), folders=(), others=())
    described.write_text("models:\n  - name: one\n    config: {tags: [growth], docs: {show: true}}\n")
    check_segments(files, known=KNOWN, columns={}, never_negative=(), lists=(), folders=(), others=())
    files["one"].write_text(f"\n{{{{ config({key}='{value}', tags='growth') }}}}\n{files['one'].read_text()}")
    with pytest.raises(UpnextError, match=rf"one.sql:2: segment 'one' takes no {key} in its config\(\); known: docs"):
        check_segments(files, known=KNOWN, columns={}, never_negative=(), lists=(), folders=(), others=())


def test_two_files_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    for folder in (tmp_path / "segments", tmp_path / "segments" / "more"):
        folder.mkdir()
        (folder / "one.sql").write_text("select user_id from {{ ref('user_features') }}")
    with pytest.raises(UpnextError, match=r"one.sql: another segment is called 'one': .*one.sql"):
        segment_files(tmp_path)
