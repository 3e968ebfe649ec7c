import json
from dataclasses import replace

import numpy as np
import pytest

from shared import payload
from shared.errors import PayloadError
from shared.payload import AdapterUpdate, Task, check_like, task_from_bytes, task_to_bytes, update_from_bytes
from shared.payload import update_to_bytes as to_bytes
from shared.plan import Plan

ONES = np.ones((2, 3), np.float32)


def raw_message(head: dict, body: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2],
        np.float32(3.0).reshape(()),
    ],
    ids=["transposed", "strided", "scalar"],
)
def test_numbers_survive_whatever_their_order_in_memory(array):
    back = update_from_bytes(to_bytes(AdapterUpdate("video", 1, {"b": array}, 64.0, "base"))).delta["b"]
    np.testing.assert_array_equal(back, array)
    assert back.shape == array.shape


@pytest.mark.parametrize("raw", [b"", b"\0" * 7, b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}"])
def test_header_that_does_not_fit(raw):
    with pytest.raises(PayloadError, match="header that does not fit"):
        update_from_bytes(raw)


def test_header_bomb_is_refused_before_it_is_parsed(monkeypatch):
    monkeypatch.setattr(payload.json, "loads", lambda raw: pytest.fail("parsed"))
    size = payload.MAX_HEADER + 1
    with pytest.raises(PayloadError, match="header that does not fit"):
        update_from_bytes(size.to_bytes(8, "little") + b"[" * size)


def test_deeply_nested_header():
    text = b"[" * 100_000
    with pytest.raises(PayloadError, match="expected safetensors"):
        update_from_bytes(len(text).to_bytes(8, "little") + text)


def test_too_many_bytes(monkeypatch):
    monkeypatch.setattr(payload, "MAX_BYTES", 100)
    with pytest.raises(PayloadError, match="expected at most 100 bytes"):
        update_from_bytes(b"\0" * 101)


def test_tensor_larger_than_its_bytes():
    head = {"b": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    with pytest.raises(PayloadError, match="expected safetensors"):
        update_from_bytes(raw_message(head, b"\0" * 64))


def test_a_quality_travels_where_there_is_one():
    update = AdapterUpdate("video", 1, {"b": ONES}, 64.0, "base")
    assert update_from_bytes(to_bytes(update)).quality is None
    assert b"quality" not in to_bytes(update)
    assert update_from_bytes(to_bytes(replace(update, quality=0.12))).quality == 0.12
    head = {"domain": "video", "round": "1", "weight": "1.0", "base": "base", "quality": "high"}
    with pytest.raises(PayloadError, match="expected a number as 'quality'"):
        update_from_bytes(raw_message({"__metadata__": head}))


def test_only_float32_travels():
    double = AdapterUpdate("video", 1, {"b": np.ones(2)}, 64.0, "base")  # type: ignore[dict-item]
    with pytest.raises(PayloadError, match="expected float32 tensors, found float64"):
        update_from_bytes(to_bytes(double))


@pytest.mark.parametrize("domain", ["", "x" * 65, "a\x1b[31m", "two\nlines"])
def test_domain_names_are_short_and_printable(domain):
    with pytest.raises(PayloadError, match="domain name of at most 64 printable"):
        update_from_bytes(to_bytes(AdapterUpdate(domain, 1, {"b": ONES}, 64.0, "base")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "run"}, "kind train or finish"),
        ({"round": "-1"}, "whole number as 'round'"),
        ({"round": "1" * 10}, "whole number as 'round'"),
        ({"plan": "{"}, "plan cannot be used"),
        ({"plan": '{"model": {"rank": 0}}'}, "model.rank: expected at least 1"),
        ({"plan": '{"model": {"targets": 3}}'}, "plan cannot be used"),
        ({"plan": '{"train": {"lr": 1%s}}' % ("0" * 400)}, "plan cannot be used"),
        ({"base": None}, "has no 'base'"),
        ({"kin": "many"}, "expected 'yes' or nothing as 'kin', found 'many'"),
    ],
)
def test_tasks_that_are_none(change, message):
    head = {"kind": "train", "round": "1", "plan": Plan().to_json(), "base": "base", **change}
    head = {key: value for key, value in head.items() if value is not None}
    with pytest.raises(PayloadError, match=message):
        task_from_bytes(raw_message({"__metadata__": head}))


def test_update_is_no_task_and_the_other_way_round():
    with pytest.raises(PayloadError, match="has no 'kind'"):
        task_from_bytes(to_bytes(AdapterUpdate("video", 1, {"b": ONES}, 64.0, "base")))
    with pytest.raises(PayloadError, match="has no 'weight'"):
        update_from_bytes(task_to_bytes(Task("train", 1, Plan(), {"b": ONES}, "base")))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "lacks tensor 'b'"),
        ({"b": ONES, "c": ONES}, "unknown tensor 'c'"),
        ({"b": ONES.T}, r"b has shape \(3, 2\), expected \(2, 3\)"),
        ({"b": ONES * np.nan}, "not finite"),
        ({"b": ONES * np.inf}, "not finite"),
    ],
)
def test_check_like(tensors, message):
    with pytest.raises(PayloadError, match=message):
        check_like(tensors, {"b": ONES}, "the update")


def test_check_like_accepts_equal_shapes():
    check_like({"b": -ONES}, {"b": ONES}, "the update")
