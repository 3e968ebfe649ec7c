"""Bytes and back is identity; whatever a peer sends raises PayloadError or is a payload."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from shared.errors import PayloadError
from shared.payload import (
    AdapterUpdate,
    Task,
    task_from_bytes,
    task_to_bytes,
    update_from_bytes,
    update_to_bytes,
)
from shared.plan import FederationPlan, Plan

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
names = names.filter(lambda name: name != "__metadata__")
arrays = npst.arrays(np.float32, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
tensors = st.dictionaries(names, arrays, max_size=4)
domains = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=64)

UPDATE = update_to_bytes(AdapterUpdate("video", 3, {"b": np.ones((2, 3), np.float32)}, 64.0, "base"))
TASK = task_to_bytes(Task("train", 3, Plan(), {"b": np.ones((2, 3), np.float32)}, "base"))


def same(left, right):
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])
        assert left[key].shape == right[key].shape


def never_more_than_payload_error(raw: bytes) -> None:
    for read in (task_from_bytes, update_from_bytes):
        try:
            read(raw)
        except PayloadError:
            continue


@given(tensors, domains, st.integers(0, 10**9 - 1), st.floats(allow_nan=False))
def test_update_and_back(delta, domain, number, weight):
    back = update_from_bytes(update_to_bytes(AdapterUpdate(domain, number, delta, weight, "base/top2")))
    assert (back.domain, back.round, back.weight, back.base) == (domain, number, weight, "base/top2")
    same(back.delta, delta)


@given(tensors, st.sampled_from(["train", "finish"]), st.integers(0, 10**9 - 1), st.integers(1, 9), st.booleans())
def test_task_and_back(adapter, kind, number, rounds, kin):
    plan = Plan(federation=FederationPlan(rounds=rounds))
    back = task_from_bytes(task_to_bytes(Task(kind, number, plan, adapter, "base", kin)))
    told = (back.kind, back.round, back.plan, back.base, back.kin)
    assert told == (kind, number, plan, "base", kin)
    same(back.adapter, adapter)


@given(st.binary(max_size=300))
def test_random_bytes(raw):
    never_more_than_payload_error(raw)


@given(st.sampled_from([UPDATE, TASK]), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8))
def test_mutated_bytes(raw, changes):
    damaged = bytearray(raw)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    never_more_than_payload_error(bytes(damaged))


@given(st.sampled_from([UPDATE, TASK]), st.integers(0), st.binary(max_size=20))
def test_truncated_and_extended_bytes(raw, place, tail):
    never_more_than_payload_error(raw[: place % len(raw)])
    if tail:
        with pytest.raises(PayloadError):
            update_from_bytes(raw + tail)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["F32", "BF16"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
entry = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", "F8_E4M3", "BOOL", "I64", "U8", "C64", "F4", "?"])
        | json_values,
        "shape": st.lists(st.integers(-2, 2**65), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-2, 40), min_size=2, max_size=2) | json_values,
    }
)
headers = st.dictionaries(st.text(max_size=5), entry | json_values, max_size=3)
metadata = st.fixed_dictionaries({}, optional={"__metadata__": json_values})


@given(headers, metadata, st.binary(max_size=40))
def test_hostile_headers(header, meta, body):
    raw = json.dumps({**header, **meta}).encode()
    never_more_than_payload_error(len(raw).to_bytes(8, "little") + raw + body)


@given(st.dictionaries(st.sampled_from(["domain", "round", "weight", "base", "kind", "plan"]), st.text(max_size=30)))
def test_hostile_metadata(meta):
    raw = json.dumps({"__metadata__": meta}).encode()
    never_more_than_payload_error(len(raw).to_bytes(8, "little") + raw)


@given(json_values)
def test_hostile_plans(plan):
    meta = {"kind": "train", "round": "1", "base": "b", "plan": json.dumps(plan)}
    raw = json.dumps({"__metadata__": meta}).encode()
    never_more_than_payload_error(len(raw).to_bytes(8, "little") + raw)


@given(st.sampled_from(["model", "train", "privacy", "federation", "adversary"]), st.text(max_size=5), json_values)
def test_hostile_plan_sections(section, key, value):
    for part in ({key: value}, {"rank": value, "lr": value, "rounds": value, "targets": value}, value):
        meta = {"kind": "train", "round": "1", "base": "b", "plan": json.dumps({section: part})}
        raw = json.dumps({"__metadata__": meta}).encode()
        never_more_than_payload_error(len(raw).to_bytes(8, "little") + raw)


@given(json_values, st.sampled_from(sorted(asdict(Plan()).items())), st.integers(0))
def test_every_setting_of_a_plan_may_be_hostile(value, section, place):
    name, settings_of = section
    key = sorted(settings_of)[place % len(settings_of)]
    meta = {"kind": "train", "round": "1", "base": "b", "plan": json.dumps({name: {key: value}})}
    raw = json.dumps({"__metadata__": meta}).encode()
    never_more_than_payload_error(len(raw).to_bytes(8, "little") + raw)
