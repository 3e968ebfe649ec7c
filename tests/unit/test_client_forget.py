"""One user: what the domain holds of them, and that nothing knows them afterwards, wherever a forgetting is stopped."""

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient
from support.reading import words
from support.tiny_home import make_home

import client.forget as forgetting
import client.rounds as rounds
from client.dataset import read_domain
from client.forget import export_user, files_of, forget
from client.forgotten import read_at_home
from client.http_api import application
from client.journal import HARMFUL, HIDE, Event, Feedback, Journal
from client.pseudonyms import SHOWN, kept_secret, pseudonym
from client.recommend import open_serving
from client.rounds import open_member
from client.service import HomeService, Who
from client.shown import ShownLog
from client.store import Home, load
from client.user_table import read_groups
from shared.errors import ConfigError, DataError, PayloadError, UnknownError
from shared.ledger import TokenRelease, append_event, append_line, read_events
from shared.payload import Task
from shared.policy import Wish
from shared.takeover import mark_of

LATER = "somebody-new"


@pytest.fixture(scope="module")
def made(tiny_base, tiny_world, cache, tmp_path_factory):
    """A home whose model was trained with a user whom the journal alone knows, between two others."""
    folder = tmp_path_factory.mktemp("made")
    data = folder / "video"
    shutil.copytree(tiny_world["video"], data)
    home = make_home(tiny_base, data, folder / "home", cache)
    items = read_at_home(home, data, "video", []).catalog.ids
    journal = Journal(home.journal)
    for who in ("first-new", LATER, "last-new"):
        journal.append([Event(who, items[n], "view", 2e9 + n) for n in range(4)])
    from support.tiny_members import tiny_plan

    from shared.model import initial_state
    from shared.payload import Task

    member = open_member(data, "video", home.folder, cache=str(cache), simulated=True)
    plan = tiny_plan(tiny_base, "train.gate=false", "train.epochs=1")
    adapter, _, fingerprint = initial_state(plan)
    member.finish(Task("finish", 1, plan, adapter, fingerprint))
    return folder


@pytest.fixture
def place(made, tmp_path):
    """A copy of it, with a residual that tells whose it is: user row n holds n + 1."""
    shutil.copytree(made, tmp_path / "place")
    home = Home(tmp_path / "place/home")
    about = json.loads(home.about.read_text())
    home.about.write_text(json.dumps(about | {"data": str(tmp_path / "place/video")}))

    def mark(tensors):
        rows = torch.arange(1, len(tensors["user.weight"]) + 1)
        tensors["user.weight"] = rows[:, None].expand_as(tensors["user.weight"]).float().contiguous()

    forgetting.change_private(home.private, mark)
    home.rounds.mkdir(exist_ok=True)
    shutil.copy(home.private, home.rounds / "1.safetensors")
    home.alone.mkdir(exist_ok=True)
    (home.alone / "alone.json").write_text("{}")
    shutil.copy(home.private, home.alone / "private.safetensors")
    return home


def residuals(home, cache) -> dict[str, float]:
    """What the served model holds of each user who is known."""
    serving = open_serving(home, cache)
    known = serving.people._row
    table = serving.private.user.weight
    return {user: float(table[row, 0]) if row < len(table) else 0.0 for user, row in known.items()}


def filled(home) -> str:
    """A user of the files with something of everything; their id."""
    domain = read_at_home(home, home.folder.parent / "video", "video", [])
    user, item = domain.interactions.user_ids[3], domain.catalog.ids[0]
    Journal(home.journal).append(
        [Event(user, item, "buy", 2e9), Feedback(user, item, HARMFUL, 2e9, "not nice"), Feedback("u", item, HIDE, 1.0)]
    )
    (domain.folder / "video.user").write_text(f"user_id:token\tage:float\nsomebody\t30\n{user}\t41\n")
    append_line(home.consents, {"user": pseudonym(home, user), "consent": "asked"})
    for epsilon in (2.0, 0.5):
        append_event(home.ledger, TokenRelease(epsilon, "near-set", user=pseudonym(home, user)))
    ShownLog(home.shown).append([{"kind": "answer", "user": pseudonym(home, user, SHOWN), "items": [item]}] * 2)
    ShownLog(home.shown).append([{"kind": "answer", "user": "another", "items": [item]}])
    return user


def test_an_export_holds_all_of_a_user(place):
    user = filled(place)
    found = json.loads(json.dumps(export_user(place, user)))
    assert (found["user"], found["domain"]) == (user, "video")
    assert found["events"][-1] | {"title": ""} == {
        "item": found["feedback"][0]["item"], "title": "", "behavior": "buy", "timestamp": 2e9, "weight": 1.0,
    }  # fmt: skip
    assert found["feedback"][0]["note"] == "not nice"
    assert found["files"] == [{"file": "video.user", "user_id": user, "age": "41"}]
    assert found["residual"] == [4.0] * 32
    assert found["passports"] == [{"user": pseudonym(place, user), "consent": "asked"}]
    assert found["passports_spent"] == [2.0, 0.5]
    assert len(found["shown"]) == 2
    with pytest.raises(UnknownError, match="no such user") as error:
        export_user(place, "nobody-at-all")
    assert "nobody-at-all" not in str(error.value)


def check_gone(home, cache, user, before):
    serving = open_serving(home, cache)
    with pytest.raises(UnknownError):
        serving.known(user)
    with pytest.raises(UnknownError):
        export_user(home, user)
    after = residuals(home, cache)
    assert user not in after
    assert after == {who: value for who, value in before.items() if who != user}  # everybody kept their own
    assert before[user] not in load(home).private["user.weight"]
    member = open_member(serving.domain.folder, "video", home.folder, cache=str(cache))
    assert user not in member.domain.interactions.user_ids
    for path in home.folder.rglob("*"):
        if path.is_file():
            assert user not in words(path.read_bytes()), path
    log = ShownLog(home.shown).check()
    assert log.broken == ""
    assert not home.forgetting.exists()


def test_who_is_forgotten_is_unknown_everywhere(place, cache):
    user = filled(place)
    before = residuals(place, cache)
    left = place.alone / ".private.safetensors.0badcafe"  # by a process that was killed while writing
    left.write_bytes(b"half of it")
    found = forget(place, user)
    assert not left.exists()
    assert (found.journal, found.residual, found.consents, found.shown) == (2, True, 1, 2)
    assert (found.files, found.listed) == (0, True)
    check_gone(place, cache, user, before)
    assert load_file(place.rounds / "1.safetensors")["user.weight"][3].abs().max() == 0
    assert not (place.alone / "private.safetensors").exists()
    assert user in (place.folder.parent / "video/video.inter").read_text()  # the owner's own
    assert ShownLog(place.shown).check().emptied == 2
    one, other = read_events(place.ledger)
    assert (one.epsilon, other.epsilon, len(one.user)) == (2.0, 0.5, 64)
    assert one.user == other.user != pseudonym(place, user)  # what one person was given still adds up
    again = forget(place, user)
    assert (again.journal, again.consents, again.shown) == (0, 0, 0)
    with pytest.raises(UnknownError):
        forget(place, "nobody-at-all")


def test_a_user_of_the_journal_alone_leaves_no_gap(place, cache):
    before = residuals(place, cache)
    assert before[LATER] == before["last-new"] - 1 > 0
    assert not forget(place, LATER).listed
    check_gone(place, cache, LATER, before)
    assert not (place.rounds / "1.safetensors").exists()


def test_the_owners_files_are_written_anew_when_asked(place, cache):
    user = filled(place)
    before = residuals(place, cache)
    folder = place.folder.parent / "video"
    rows = (folder / "video.inter").read_bytes().splitlines()
    found = forget(place, user, data_too=True)
    mine = [row for row in rows if row.split(b"\t")[0] == user.encode()]
    assert found.files == len(mine) + 1
    assert (folder / "video.inter").read_bytes().splitlines() == [row for row in rows if row not in mine]
    assert (folder / "video.user").read_text() == "user_id:token\tage:float\nsomebody\t30\n"
    check_gone(place, cache, user, before)


def test_who_stands_in_the_files_beside_alone_is_exported_and_forgotten(place):
    filled(place)
    path = place.folder.parent / "video" / "video.user"
    assert export_user(place, "somebody")["files"] == [{"file": "video.user", "user_id": "somebody", "age": "30"}]
    assert export_user(place, "somebody")["events"] == []
    found = forget(place, "somebody")
    assert (found.files, found.listed) == (0, True)
    with pytest.raises(UnknownError):
        export_user(place, "somebody")
    found = forget(place, "somebody", data_too=True)
    assert (found.files, found.listed) == (1, False)
    assert "somebody" not in path.read_text()


@pytest.mark.parametrize(
    ("items", "events", "beside"),
    [
        ("items.csv", "interactions.csv", ["users.csv", "items.net"]),
        ("items.csv", "interactions.csv", ["users.csv", "users.parquet", "interactions.net"]),
        ("shop.item", "shop.inter", ["shop.user", "shop.net"]),
        ("shop.item", "events.inter", ["shop.user", "shop.net"]),
        ("shop.item", "events.inter", ["events.user", "shop.user", "shop.net", "events.net"]),
        ("shop.item", "interactions.csv", ["shop.user", "shop.net"]),
    ],
)
def test_every_file_that_is_read_of_users_is_one_that_a_forgetting_writes_anew(tmp_path, items, events, beside):
    def write(name, *rows):
        between = "," if name.endswith(".csv") else "\t"
        (tmp_path / name).write_text("".join(between.join(row) + "\n" for row in rows))

    write(items, ("item_id", "title"), ("i1", "A"))
    write(events, ("user_id", "item_id"), ("u1", "i1"), ("u2", "i1"))
    for name in beside:
        if name.endswith(".net"):
            write(name, ("source_id", "target_id"), ("u1", "u2"))
        else:
            write(name, ("user_id", "gender"), ("u1", "f"), ("u2", "m"))
    domain = read_domain(tmp_path)
    assert [path.name for path in files_of(domain)] == [events, *beside]
    assert "neither read" not in domain.describe()
    assert domain.friends.of(0).tolist() == [1]
    assert read_groups(domain) == {"gender": {"u1": "f", "u2": "m"}}


def test_friends_leave_a_file_that_is_named_as_the_items(place):
    user, folder = filled(place), load(place).data
    (folder / "video.inter").rename(folder / "events.inter")
    (folder / "video.net").write_text(f"source_id:token\ttarget_id:token\n{user}\tsomebody\nsomebody\t{user}\n")
    found = [one["file"] for one in export_user(place, user)["files"]]
    assert found == ["video.user", "video.net", "video.net"]
    forget(place, user, data_too=True)
    assert not any(user in words(path.read_bytes()) for path in folder.iterdir())


def test_a_process_that_trains_reads_its_data_anew_after_each_forgetting(place):
    user = filled(place)
    marks = set()
    for _ in range(2):
        forget(place, user)
        marks.add(mark_of(place.forgotten))
        Journal(place.journal).append([Event(user, "i", "view", 2.1e9)])
    assert len(marks) == 2


def test_who_is_forgotten_while_a_process_begins_is_left_out_of_its_next_task(place, monkeypatch, tiny_base):
    user = filled(place)
    find_base = rounds.find_base

    def slowly(base):  # the data are read by now
        forget(place, user)
        return find_base(base)

    monkeypatch.setattr(rounds, "find_base", slowly)
    plan = load(place).plan
    member = open_member(load(place).data, "video", place.folder, cache="unused", base=str(tiny_base))
    assert user in member.domain.interactions.user_ids
    with pytest.raises(PayloadError):  # a task without an adapter; the data come first
        member.train(Task("train", 1, plan, {}, "base"))
    assert user not in member.domain.interactions.user_ids


def test_a_round_of_more_users_than_are_served_keeps_nothing_of_who_is_forgotten(place):
    """A user who came in since the served model was made has a row in the rounds of the next run alone."""
    user = "since-then"
    data = load(place).data
    domain = read_at_home(place, data, "video", Journal(place.journal).entries)
    with (data / "video.inter").open("a") as file:
        line = (data / "video.inter").read_text().splitlines()[1].split("\t")
        file.write("\t".join([user, *line[1:]]) + "\n")
    row = len(read_at_home(place, data, "video", []).interactions.user_ids) - 1
    save_file({"user.weight": torch.ones(len(domain.interactions.user_ids) + 1, 2)}, place.rounds / "2.safetensors")
    forget(place, user)
    assert float(load_file(place.rounds / "2.safetensors")["user.weight"][row].abs().sum()) == 0


def test_a_key_that_was_not_written_whole_is_no_key(tmp_path):
    home, path = Home(tmp_path), tmp_path / "pseudonyms.key"

    def full():
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        kept_secret(path, full)
    assert list(tmp_path.iterdir()) == []
    assert pseudonym(home, "ann") == pseudonym(home, "ann") != pseudonym(home, "bob")
    assert [(one.name, one.stat().st_mode & 0o777) for one in tmp_path.iterdir()] == [("pseudonyms.key", 0o600)]
    path.write_bytes(b"")  # as a process left it that was killed
    with pytest.raises(DataError, match="expected 32 bytes, found 0; restore it from a backup"):
        pseudonym(home, "ann")


def test_who_comes_back_is_new_and_can_be_forgotten_again(place, cache):
    user = filled(place)
    forget(place, user)
    item = load(place).data and read_at_home(place, load(place).data, "video", []).catalog.ids[5]
    Journal(place.journal).append([Event(user, item, "view", 2.1e9)])
    serving = open_serving(place, cache)
    person = serving.known(user)
    assert len(person.past) == 1
    assert person.user is None
    assert forget(place, user).journal == 1
    with pytest.raises(UnknownError):
        open_serving(place, cache).known(user)


@pytest.mark.parametrize(("who", "data_too"), [("filled", True), (LATER, False)])
def test_a_forgetting_stopped_anywhere_is_finished_by_the_next(place, cache, who, data_too):
    """Stopped before each line of ``forget`` in turn, then run again."""
    user = filled(place) if who == "filled" else who
    before = residuals(place, cache)
    here = forgetting.forget.__code__
    lines = sorted({line for _, _, line in here.co_lines() if line is not None})[8:]
    saved = place.folder.parent.parent / "saved"
    shutil.copytree(place.folder.parent, saved)

    class Stopped(BaseException):
        pass

    stops = []
    for stop in lines:
        shutil.rmtree(place.folder.parent)
        shutil.copytree(saved, place.folder.parent)

        def trace(frame, event, _, stop=stop):
            if frame.f_code is here and event == "line" and frame.f_lineno == stop:
                raise Stopped
            return trace if frame.f_code is here else None

        old = sys.gettrace()
        sys.settrace(trace)
        try:
            forget(place, user, data_too=data_too)
            continue  # a line that this case does not come to
        except Stopped:
            stops.append(stop)
        finally:
            sys.settrace(old)
        if place.forgetting.exists():
            with pytest.raises(DataError, match="stopped in the middle"):
                open_serving(place, cache)
            with pytest.raises(ConfigError, match="finish that one first"):
                forget(place, "first-new")
        forget(place, user, data_too=data_too)
        if stop in lines[:: max(1, len(lines) // 4)]:
            check_gone(place, cache, user, before)
        private = load(place).private["user.weight"]
        assert before[user] not in private
        assert not place.forgetting.exists()
    assert len(stops) >= 12


def test_the_api_exports_and_forgets_while_serving(place, cache):
    user = filled(place)
    service = HomeService(place, cache)
    api = TestClient(application(service, "1"))
    for _ in range(3):
        service.recommend(Who(user), Wish(5))
    shown = api.get(f"/api/users/{user}/export").json()["shown"]
    assert len(shown) == 5
    assert len(shown[-1]["items"]) == 5
    version = service.serving.engine.version
    found = api.delete(f"/api/users/{user}").json()
    assert found["shown"] == 5
    assert "next training" in found["stays"]
    assert api.post("/api/recommend", json={"user": user}).status_code == 404
    assert api.delete("/api/users/nobody").status_code == 404
    assert service.serving.engine.version == version  # no vector was computed again
    service.close()
    assert ShownLog(place.shown).check().broken == ""


def test_a_serving_process_takes_over_what_a_command_forgot(place, cache):
    user = filled(place)
    service = HomeService(place, cache)
    forget(place, user)
    service.recommend(Who(user), Wish(5))  # not yet known
    assert service.refresh() is not None
    with pytest.raises(UnknownError):
        service.recommend(Who(user), Wish(5))
    service.close()
    bodies = [record.body for record in ShownLog(place.shown).records()]
    assert not any(body and body.get("user") == pseudonym(place, user, SHOWN) for body in bodies)
    assert ShownLog(place.shown).check().broken == ""
