import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from client.dataset import Interactions, read_domain
from client.splits import split
from shared.catalog import BEHAVIOURS
from shared.errors import DataError

NOW = 1_700_000_000
ITEMS = 12
rows = st.tuples(
    st.integers(0, 5), st.integers(0, ITEMS - 1), st.sampled_from(BEHAVIOURS), st.integers(0, 400), st.integers(0, 99)
)


@contextmanager
def folder_with(events, name=lambda user: f"u{user}"):
    """A domain on disk with these (user, item, behaviour, hour, weight) rows, in this order."""
    with tempfile.TemporaryDirectory() as folder:
        yield write(Path(folder), events, name)


def write(folder, events, name):
    items = ["item_id:token\ttitle:token_seq", *(f"i{n}\titem {n}" for n in range(ITEMS))]
    header = "user_id:token\titem_id:token\tbehavior:token\ttimestamp:float\tweight:float"
    lines = [f"{name(u)}\ti{i}\t{b}\t{NOW + 3600 * t}\t{w}" for u, i, b, t, w in events]
    (folder / "x.item").write_text("\n".join(items))
    (folder / "x.inter").write_text("\n".join([header, *lines]), encoding="utf-8", newline="\n")
    return folder


def different(events):
    first = {}
    for row in events:
        first.setdefault(row[:4], row)
    return list(first.values())


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, min_size=1, max_size=60))
def test_what_is_written_is_read(events):
    with folder_with(events) as folder:
        data = read_domain(folder).interactions
    order = {user: place for place, user in enumerate(dict.fromkeys(row[0] for row in events))}
    expected = sorted(different(events), key=lambda row: (order[row[0]], row[3]))  # stable, as the file's order
    found = [
        (int(data.user_ids[user][1:]), item, BEHAVIOURS[kind], int(when - NOW) // 3600, int(weight))
        for user, item, kind, when, weight in zip(
            data.users, data.items, data.behaviours, data.times, data.weights, strict=True
        )
    ]
    assert found == expected


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=8, unique=True))
def test_any_text_without_tab_and_line_break_is_an_id(names):
    clean = list(dict.fromkeys(n for name in names if (n := "".join(name.split())) and "\ufffd" not in n))
    clean = [name for name in clean if not any("\ud800" <= c <= "\udfff" or c < " " for c in name)]
    assume(clean)
    events = [(user, 0, "buy", 1, 1) for user in range(len(clean))]
    with folder_with(events, lambda user: clean[user]) as folder:
        assert read_domain(folder).interactions.user_ids == tuple(clean)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_interactions_or_one_clear_error(rubbish):
    with folder_with([(0, 0, "buy", 1, 1)]) as folder:
        path = folder / "x.inter"
        path.write_bytes(path.read_bytes() + b"\n" + rubbish)
        assert len(read_domain(folder).interactions) >= 1  # the good row is still there
        path.write_bytes(rubbish)
        with pytest.raises(DataError, match="expected"):  # so short a file has no header by chance
            read_domain(folder)


def interactions(events):
    events = sorted(different(events), key=lambda row: (row[0], row[3]))
    users, items, kinds, hours, weights = (np.array(column) for column in zip(*events, strict=True))
    names, dense = np.unique(users, return_inverse=True)
    times = NOW + 3600.0 * hours
    codes = np.array([BEHAVIOURS.index(kind) for kind in kinds])
    return Interactions(
        tuple(str(name) for name in names),
        dense.astype(np.int32),
        items.astype(np.int32),
        codes.astype(np.int8),
        times,
        weights.astype(np.float32),
    )


def parts_of(data, protocol, **caps):
    try:
        return split(data, protocol, **caps)
    except DataError:
        assume(False)


@settings(max_examples=80, deadline=None)
@given(st.lists(rows, min_size=3, max_size=80), st.integers(1, 6))
def test_loo_parts_put_together_are_the_history(events, max_events):
    data = interactions(events)
    parts = parts_of(data, "loo", max_events=max_events)
    histories = [data.items[data.users == user].tolist() for user in range(len(data.user_ids))]
    places = {int(user): place for place, user in enumerate(parts.test.users)}
    assert len(parts.train) == len(histories)
    for user, history in enumerate(histories):
        known = history[:-2] if len(history) >= 3 else history
        assert parts.train.row(user).tolist() == known[-max_events:]
        if (place := places.get(user)) is None:
            assert len(history) < 3
            continue
        assert parts.valid.histories.row(place).tolist() == known[-max_events:]
        assert parts.valid.targets.row(place).tolist() == [history[-2]]
        assert parts.test.histories.row(place).tolist() == history[:-1][-max_events:]
        assert parts.test.targets.row(place).tolist() == [history[-1]]


@settings(max_examples=80, deadline=None)
@given(st.lists(rows, min_size=10, max_size=120))
def test_time_never_leaks_the_future_into_the_past(events):
    data = interactions(events)
    parts = parts_of(data, "time")
    for cases in (parts.valid, parts.test):
        seen = cases.seen
        for place, user in enumerate(cases.users):
            own = data.items[data.users == user].tolist()
            past, targets = seen.row(user).tolist(), cases.targets.row(place).tolist()
            assert own[: len(past)] == past  # what came first, in order
            assert cases.histories.row(place).tolist() == past[-200:]
            assert targets
            assert len(set(targets)) == len(targets)
            assert not set(targets) & set(past)
            assert set(targets) <= set(own[len(past) :])
    assert sum(parts.valid.seen.lengths) <= sum(parts.test.seen.lengths) < len(data)
