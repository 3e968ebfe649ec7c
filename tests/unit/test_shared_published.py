"""A catalogue given away, and what somebody else may have put in its place."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.dataset import read_domain
from client.journal import BLOCK, Decision, Journal
from client.pseudonyms import FORGOTTEN, pseudonym
from client.publish import FEWEST_USERS, groups, publish
from client.store import Home
from shared.catalog import Catalog
from shared.errors import DataError
from shared.ledger import append_line
from shared.published import read_published, write_published

SMALL = Catalog("film", ("f1", "f2"), ("Up", "Déjà vu"), ("Up. comedy", "Déjà vu"), {"genre": ("comedy", "")})


def test_what_was_written_is_read(tmp_path):
    write_published(tmp_path, SMALL)
    found = read_published(tmp_path)
    assert found.catalog == SMALL
    assert found.groups is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalogue.json", "items.jsonl"]
    write_published(tmp_path, SMALL, [2, 0])
    assert read_published(tmp_path).groups == (2, 0)


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=6, unique=True), st.text(max_size=40))
def test_any_text_that_is_written_can_be_read(tmp_path_factory, ids, text):
    folder = tmp_path_factory.mktemp("any")
    catalog = Catalog("shop", tuple(ids), (text,) * len(ids), (text,) * len(ids), {"brand": (text,) * len(ids)})
    try:
        written = write_published(folder, catalog)
    except DataError:
        assert list(folder.iterdir()) == []
        assert any(not one.isprintable() for one in ids)
        return
    assert read_published(folder) == written
    assert written.catalog.ids == tuple(ids)


def damaged(folder, lines=None, **head):
    """A folder whose hashes are right and whose content is not."""
    import hashlib

    write_published(folder, SMALL, [2, 0])
    raw = (folder / "items.jsonl").read_bytes() if lines is None else lines
    (folder / "items.jsonl").write_bytes(raw)
    told = json.loads((folder / "catalogue.json").read_text())
    told |= {"sha256": hashlib.sha256(raw).hexdigest(), **head}
    (folder / "catalogue.json").write_text(json.dumps(told))
    return folder


LINE = b'{"item_id": "f1", "title": "Up", "text": "Up", "attributes": {}}\n'


@pytest.mark.parametrize(
    ("lines", "head", "message"),
    [
        (b"\xff\xfe\n" + LINE, {}, "line 1: expected UTF-8"),
        (b"[" * 100_000 + b"\n" + LINE, {}, "line 1: expected a JSON object"),
        (b"7\n" + LINE, {}, "line 1: expected a JSON object"),
        (LINE * 2, {}, "expected each item once"),
        (LINE, {}, "expected 2 items"),
        (LINE + LINE.replace(b'"f1"', b'"f2\\u001b[2J"'), {}, "line 2: item_id: expected letters that show"),
        (
            LINE + LINE.replace(b'"f1"', b'"f2"').replace(b'"Up"', b'"\\ud800"', 1),
            {},
            "line 2: title: expected letters",
        ),
        (LINE + LINE.replace(b'"f1"', b'"f2"').replace(b'"Up"', b"7", 1), {}, "line 2: title: expected a text"),
        (LINE + LINE.replace(b'"f1"', b'"' + b"x" * 257 + b'"'), {}, "line 2: item_id: expected a text of 1 to 256"),
        (LINE + LINE.replace(b"{}}", b'{"secret": "x"}}'), {}, "line 2: expected attributes among"),
        (LINE + LINE.replace(b"{}}", b"[]}"), {}, "line 2: expected attributes among"),
        (LINE + LINE.replace(b"{}}", b'{}, "group": 9}'), {}, "line 2: expected a group from 0 to 2"),
        (LINE + b" " * 2**18 + b"\n", {}, "line 2: expected at most"),
        (LINE + LINE.replace(b'"f1"', b'"f2"'), {}, "do not have the fingerprint"),
        (None, {"format": 2}, "expected a catalogue of format 1"),
        (None, {"domain": ""}, "domain: expected a text of 1 to 64"),
        (None, {"domain": "a\nb"}, "domain: expected letters that show"),
        (None, {"items": True}, "expected from 1 to"),
        (None, {"items": 10**12}, "expected from 1 to"),
        (None, {"attributes": ["x"] * 65}, "at most 64 names"),
        (None, {"attributes": [7]}, "name of an attribute: expected a text"),
        (None, {"groups": 1}, "expected groups to be true or false"),
        (None, {"sha256": None}, "sha256: expected a text"),
    ],
)
def test_untrusted_bytes_are_refused_with_the_reason(tmp_path, lines, head, message):
    with pytest.raises(DataError, match=r"items\.jsonl|catalogue\.json") as caught:
        read_published(damaged(tmp_path, lines, **head))
    assert message in str(caught.value)


def test_a_changed_or_absent_file_is_told(tmp_path):
    with pytest.raises(DataError, match="holds no published catalogue"):
        read_published(tmp_path)
    write_published(tmp_path, SMALL)
    (tmp_path / "items.jsonl").write_bytes(LINE)
    with pytest.raises(DataError, match="is damaged"):
        read_published(tmp_path)
    (tmp_path / "items.jsonl").unlink()
    with pytest.raises(DataError, match="expected a file at"):
        read_published(tmp_path)


def test_control_letters_and_length_do_not_travel(tmp_path):
    long = Catalog("shop", ("1",), ("a\x1b[2Jb" + "x" * 5000,), ("t" * 10_000,))
    title = write_published(tmp_path, long).catalog.titles[0]
    assert title.startswith("a [2Jb")
    assert len(title) == 2000


def test_nothing_of_a_user_is_published(tiny_world, tmp_path):
    published, _ = publish(tiny_world["video"], "video", Home(tmp_path / "none"), tmp_path / "out", popularity=True)
    everything = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir()).decode()
    inter = next(tiny_world["video"].glob("*.inter")).read_text().splitlines()[1:]
    users = {line.split("\t")[0] for line in inter}
    assert len(users) > 100
    assert not [user for user in users if f'"{user}"' in everything]
    assert len(published.catalog) == 60


def test_who_was_forgotten_counts_in_no_group(tiny_world, tmp_path):
    home = Home(tmp_path / "home")
    whole, _ = publish(tiny_world["video"], "video", home, tmp_path / "whole", popularity=True)
    assert max(whole.groups) > 0
    users = read_domain(tiny_world["video"], "video").interactions.user_ids
    for user in users[FEWEST_USERS - 1 :]:  # who is left is too few to tell of
        append_line(home.forgotten, {"who": pseudonym(home, user, FORGOTTEN), "shown": "", "day": "2026-01-01"})
    part, _ = publish(tiny_world["video"], "video", home, tmp_path / "part", popularity=True)
    assert set(part.groups) == {0}


def test_what_a_rule_strikes_at_any_age_is_not_published(tiny_world, tmp_path):
    home = Home(tmp_path / "home")
    whole, _ = publish(tiny_world["video"], "video", home, tmp_path / "whole", popularity=True)
    one, two, three = whole.catalog.ids[3:6]
    home.folder.mkdir()
    home.rules.write_text(f'[block]\nitems = ["{one}"]\n[age.18]\nitems = ["{two}"]')
    Journal(home.journal).append([Decision(three, BLOCK, 5.0)])
    part, struck = publish(tiny_world["video"], "video", home, tmp_path / "part", popularity=True)
    assert struck == 3
    assert part.catalog.ids == (*whole.catalog.ids[:3], *whole.catalog.ids[6:])
    assert part.groups == (*whole.groups[:3], *whole.groups[6:])
    assert part.catalog.columns["genre"] == (*whole.catalog.columns["genre"][:3], *whole.catalog.columns["genre"][6:])
    home.rules.write_text(f"[block]\nitems = {json.dumps(whole.catalog.ids)}")
    with pytest.raises(DataError, match="strike every item of video"):
        publish(tiny_world["video"], "video", home, tmp_path / "none", popularity=False)


def test_groups_tell_of_no_item_that_few_met():
    """200 items: item i is met by max(0, 100 - i) users. Two are the head, the next 38 known, unless below 20 users."""
    import numpy as np

    from client.dataset import Domain, Interactions

    met = [max(0, 100 - item) for item in range(200)]
    users = np.concatenate([np.arange(count) for count in met]).astype(np.int32)
    items = np.concatenate([np.full(count, item) for item, count in enumerate(met)]).astype(np.int32)
    # Somebody who met the last item a thousand times is one user still.
    users, items = np.append(users, [0] * 1000).astype(np.int32), np.append(items, [199] * 1000).astype(np.int32)
    none = np.zeros(len(users), np.float32)
    data = Interactions(tuple(map(str, range(100))), users, items, none.astype(np.int8), none.astype(float), none)
    ids = tuple(map(str, range(200)))
    domain = Domain("shop", None, Catalog("shop", ids, ids, ids), data, ())
    assert groups(domain) == [2] * 2 + [1] * 38 + [0] * 160
    few = Domain("shop", None, domain.catalog, Interactions(data.user_ids, users % 19, items, *(none,) * 3), ())
    assert groups(few) == [0] * 200
