"""The resident worker behind its socket, asked as the relay asks it."""

import stat
import threading
import time
from dataclasses import replace
from hashlib import sha256

import grpc
import numpy as np
import pytest
from support.fake_member import FakeMember, fake_plan, fake_start

from client.relay import call, relay
from client.secure_sum import SecureSum, strangers
from client.worker import Desk, serving
from shared.errors import BudgetError, DataError, TrainingError
from shared.payload import AdapterUpdate, Task, name_of, task_to_bytes, update_from_bytes
from shared.secure_payload import announcement_from, deal
from shared.wire import Answer, answer_to_record, question_to_record, task_to_record


def task(kind: str = "train", number: int = 1) -> Task:
    adapter, _, base = fake_start(fake_plan())
    return Task(kind, number, fake_plan(), adapter, base)


@pytest.fixture
def desk(tmp_path):
    return Desk(FakeMember("video"), tmp_path / "home" / "domain.log")


@pytest.fixture
def socket(desk):
    with serving(desk) as path:
        yield path


def ask(socket, raw: bytes, timeout_s: float = 10) -> Answer:
    return relay(task_to_record(raw, timeout_s), "video", str(socket))


def test_an_update_comes_back(desk, socket):
    answer = ask(socket, task_to_bytes(task()))
    expected = FakeMember("video").train(task())
    update = update_from_bytes(answer.raw)
    assert (answer.domain, answer.reason, update.domain, update.round) == ("video", "", "video", 1)
    for key, value in expected.delta.items():
        np.testing.assert_array_equal(update.delta[key], value)


def test_finish_answers_nothing_and_is_noted(desk, socket):
    assert not desk.finished.is_set()
    assert ask(socket, task_to_bytes(task("finish"))) == Answer("video")
    assert desk.finished.is_set()
    assert desk.member.kept.kind == "finish"


def test_the_socket_is_private_short_and_removed(desk):
    with serving(desk) as path:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert len(str(path)) < 100
    assert not path.parent.exists()


def test_damaged_bytes_are_refused_and_the_worker_lives_on(desk, socket):
    raw = task_to_bytes(task())
    for damaged in (raw[:50], b"\xff" * 64, raw + b"x"):
        assert "expected safetensors" in ask(socket, damaged).reason
    assert ask(socket, raw).reason == ""
    assert desk.member.trained == [1]


def test_a_refusal_tells_the_reason(desk, socket):
    desk.member.behaviour = "refuses"
    answer = ask(socket, task_to_bytes(task()))
    assert answer == Answer("video", reason=answer.reason)
    assert "epsilon 9, the data owner allows 8" in answer.reason
    assert not desk.log.exists()


def test_what_is_the_owners_alone_is_told_to_the_owner_alone(desk, socket, monkeypatch):
    def train(task: Task) -> None:
        raise BudgetError("above the limit by 1.234", told="above the limit")

    heard: list[str] = []
    desk.say = heard.append
    monkeypatch.setattr(desk.member, "train", train)
    assert ask(socket, task_to_bytes(task())).reason == "above the limit"
    assert "refused a task: above the limit by 1.234" in heard


def test_an_unexpected_failure_stays_in_the_domains_own_log(desk, socket):
    desk.member.behaviour = "breaks"
    answer = ask(socket, task_to_bytes(task()))
    assert answer.reason == "failed inside; see the domain's log"
    assert "u-secret-17" in desk.log.read_text()
    assert stat.S_IMODE(desk.log.stat().st_mode) == 0o600


def test_a_data_error_may_quote_a_row_and_stays_at_home(desk, socket, monkeypatch):
    def train(task: Task) -> None:
        raise DataError("line 7: user u-secret-17 has no time")

    monkeypatch.setattr(desk.member, "train", train)
    assert ask(socket, task_to_bytes(task())).reason == "failed inside; see the domain's log"
    assert "u-secret-17" in desk.log.read_text()


def test_one_task_at_a_time(desk, socket):
    running, most = [0], [0]
    true_train = desk.member.train

    def train(given: Task) -> object:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.05)
        running[0] -= 1
        return true_train(given)

    desk.member.train = train
    answers: list[Answer] = []
    raws = [task_to_bytes(task(number=number)) for number in (1, 2, 3)]
    threads = [threading.Thread(target=lambda raw=raw: answers.append(ask(socket, raw))) for raw in raws]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert sorted(update_from_bytes(answer.raw).round for answer in answers) == [1, 2, 3]


def test_a_task_whose_caller_gave_up_while_it_queued_is_not_run(desk, socket):
    with desk.lock:
        assert ask(socket, task_to_bytes(task()), 0.2).reason == "no answer within 0.2 s; raise the round's timeout"
        time.sleep(0.2)  # the news that the caller is gone takes a moment to arrive
    ask(socket, task_to_bytes(task(number=2)))
    assert desk.member.trained == [2]


def secret_task() -> Task:
    adapter, _, base = fake_start(fake_plan())
    return Task("train", 1, fake_plan(secure=True), adapter, base)


def test_plan_and_owner_must_agree_on_secure_sums(desk, socket):
    assert "--members FOLDER" in ask(socket, task_to_bytes(secret_task())).reason
    desk.secure = SecureSum(strangers(["video"])["video"])
    assert "secure sums alone" in ask(socket, task_to_bytes(task())).reason
    assert desk.member.trained == []  # nothing was trained, nothing spent


def test_in_a_secure_sum_the_update_stays(desk, socket):
    desk.secure = SecureSum(strangers(["video"])["video"])
    asked = task_to_bytes(secret_task())
    raw = ask(socket, asked).raw
    assert announcement_from(raw).name == "video"
    assert announcement_from(raw).task == sha256(asked).hexdigest()
    assert desk.secure.attempt.key == name_of(secret_task())
    assert desk.member.trained == [1]
    assert "not signed" in ask(socket, deal([replace(announcement_from(raw), masking=bytes(32))])).reason
    assert ask(socket, task_to_bytes(task("finish"))).reason == ""


def test_in_a_secure_sum_nobody_hears_who_learnt_nothing(desk, socket):
    """Or by tasks made for it a server would read one domain's data off who fails."""
    desk.secure = SecureSum(strangers(["video"])["video"])
    failed = TrainingError("the loss is nan in epoch 1")
    desk.member.train = lambda task: raised(failed)
    assert "the loss is nan" in ask(socket, task_to_bytes(secret_task())).reason  # it did not say what else to sum
    failed.instead = AdapterUpdate("video", 1, {"lora_B": np.zeros(6, np.float32)}, 0.0, "base")
    answer = ask(socket, task_to_bytes(secret_task()))
    assert (announcement_from(answer.raw).name, answer.reason) == ("video", "")
    np.testing.assert_array_equal(desk.secure.attempt.numbers, np.zeros(7))  # the last is the weight
    assert "the loss is nan" in desk.log.read_text()


def raised(error):
    raise error


def test_the_same_numbers_are_one_sum_in_whatever_run(desk, socket):
    """Else a server that gives one training two names has two sums of it, with different members."""
    desk.secure = SecureSum(strangers(["video"])["video"])
    task, keys = secret_task(), []
    for one in (
        task,
        task,
        replace(task, round=2),
        replace(task, adapter={name: value + 1 for name, value in task.adapter.items()}),
    ):
        ask(socket, task_to_bytes(one))
        keys.append(desk.secure.attempt.key)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_after_the_run_nothing_is_held(desk, socket):
    desk.secure = SecureSum(strangers(["video"])["video"])
    ask(socket, task_to_bytes(secret_task()))
    assert desk.secure.attempt is not None
    ask(socket, task_to_bytes(replace(secret_task(), kind="finish")))
    assert desk.secure.attempt is None


def test_no_worker(tmp_path):
    assert "start python -m client again" in ask(tmp_path / "nobody", task_to_bytes(task())).reason


def test_a_question_is_answered_by_the_relay_alone(tmp_path):
    assert relay(question_to_record(5), "video", str(tmp_path / "nobody")) == Answer("video")


def test_a_foreign_message_is_answered_with_a_reason(socket):
    assert "found another message" in relay(answer_to_record(Answer("x", b"y")), "video", str(socket)).reason


def test_a_message_above_grpcs_default_limit_passes(desk, socket):
    adapter, _, base = fake_start(fake_plan())
    adapter["tower"] = np.random.default_rng(0).normal(size=2_000_000).astype(np.float32)  # 8 MB, default limit 4
    answer = ask(socket, task_to_bytes(Task("train", 1, fake_plan(), adapter, base)))
    assert len(answer.raw) > 8_000_000


def test_calling_another_method_is_an_rpc_error(socket):
    with grpc.insecure_channel(f"unix:{socket}") as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary("/isthmus.Worker/Other")(b"", timeout=2)
    assert call(str(socket), task_to_bytes(task("finish")), 5) == b""
