"""How a person's ids may be written in files."""

from upnext.people.known import Person


def test_each_way_to_write_an_id_is_looked_for() -> None:
    person = Person(('o"b/é',), (), ())
    ways = {'o\\"b/é', 'o\\"b/\\u00e9', 'o\\"b\\/é', 'o\\"b\\/\\u00e9', 'o""b/é'}
    assert set(person.written) == ways
    for line in (b'{"userId": "o\\"b\\/\\u00e9"}', '1,"o""b/é",login'.encode()):
        assert any(one.encode() in line for one in person.written)
        assert person.is_named_in(line, {"userId"})
    assert not person.is_named_in(b'{"userId": "bob"}', {"userId"})
