import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.tiny_bert import make_checkpoint

import shared.model as model_module
import shared.prefix as prefix
from shared.errors import BaseModelError, FullError
from shared.model import Recommender
from shared.plan import ModelPlan
from shared.prefix import find_base, length_batches, load_bert, prefix_forward, prefix_key, prefix_states, tokenize

TEXTS = ("red guitar", "", "the movie of the year: a love story in space", "x" * 300, "红色 tea")


def full_bert(base, texts, max_tokens):
    """The whole model, text by text, mean over tokens, length 1: the slow truth."""
    bert = load_bert(base)
    rows = []
    for ids in tokenize(base, texts, max_tokens):
        with torch.no_grad():
            hidden = bert(input_ids=torch.tensor([ids])).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
    return torch.stack(rows)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_cached_prefix_and_top_equal_the_full_bert(tiny_base, tmp_path, monkeypatch, top):
    monkeypatch.setattr(model_module, "BF16", False)
    base = find_base(str(tiny_base))
    model = Recommender(ModelPlan(base=str(tiny_base), top_layers=top, max_tokens=24, rank=2), base, seed=1)
    states = prefix_states(model.top.bert, base, TEXTS, model.split, 24, tmp_path)
    found = model.encode_raw(states, np.arange(len(TEXTS)))
    # the cache holds bfloat16: 8 bits of mantissa
    torch.testing.assert_close(found, full_bert(base, TEXTS, 24), atol=5e-3, rtol=0)


def test_parity_on_the_embedded_base(tmp_path):
    base = find_base("minilm")
    model = Recommender(ModelPlan(), base, seed=1)
    states = prefix_states(model.top.bert, base, TEXTS, model.split, 64, tmp_path)
    cosine = (model.encode_raw(states, np.arange(len(TEXTS))) * full_bert(base, TEXTS, 64)).sum(1)
    assert cosine.min() > 0.999


def test_the_next_run_reads_and_does_not_compute(tiny_base, tmp_path, monkeypatch):
    base = find_base(str(tiny_base))
    bert = load_bert(base)
    first = prefix_states(bert, base, TEXTS, 2, 24, tmp_path)
    monkeypatch.setattr(prefix, "prefix_forward", lambda *_: pytest.fail("computed again"))
    again = prefix_states(bert, base, TEXTS, 2, 24, tmp_path)
    assert torch.equal(first.states, again.states)


def counted(monkeypatch, stop_at=None):
    """How many batches were computed; at the one of that number somebody presses Ctrl-C."""
    calls = []
    real = prefix_forward

    def forward(*args):
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(prefix, "prefix_forward", forward)
    return calls


@pytest.mark.parametrize(
    ("damage", "again"),
    [
        (lambda making: None, 3),  # of 9 batches 7 were done, 6 of them kept
        (lambda making: (making / "done.json").write_text("[64, 6]"), 9),  # of batches of another size
        (lambda making: (making / "done.json").write_text("{"), 9),
        (lambda making: (making / "states.bf16").write_bytes(b""), 9),
    ],
)
def test_an_interrupted_computation_goes_on_where_it_was(tiny_base, tmp_path, monkeypatch, damage, again):
    base, texts = find_base(str(tiny_base)), [f"{text} {place}" for place in range(9) for text in TEXTS[:1]]
    bert = load_bert(base)
    monkeypatch.setattr(prefix, "BATCH_TOKENS", 4)  # each text is a batch
    monkeypatch.setattr(prefix, "KEEP_BATCHES", 2)
    whole = prefix_states(bert, base, texts, 2, 24, tmp_path / "whole").states.clone()
    counted(monkeypatch, stop_at=7)
    with pytest.raises(KeyboardInterrupt):
        prefix_states(bert, base, texts, 2, 24, tmp_path / "cache")
    (making,) = (tmp_path / "cache").iterdir()
    assert prefix._open(making) is None
    damage(making)
    calls, told = counted(monkeypatch), []
    found = prefix_states(bert, base, texts, 2, 24, tmp_path / "cache", lambda *at: told.append(at))
    assert torch.equal(found.states, whole)
    assert (len(calls), told[0], told[-1]) == (again, (9 - again + 1, 9), (9, 9))
    (place,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "offsets.npy", "states.bf16"]


def test_a_mark_of_states_that_are_gone_is_never_believed(tiny_base, tmp_path, monkeypatch):
    """Room is made for all states at once: were the old mark still there, zeros would count as computed."""
    base, texts = find_base(str(tiny_base)), [f"{TEXTS[0]} {place}" for place in range(9)]
    bert = load_bert(base)
    monkeypatch.setattr(prefix, "BATCH_TOKENS", 4)
    monkeypatch.setattr(prefix, "KEEP_BATCHES", 2)
    whole = prefix_states(bert, base, texts, 2, 24, tmp_path / "whole").states.clone()
    for stop_at in (7, 1):  # the second time before its first mark
        counted(monkeypatch, stop_at)
        with pytest.raises(KeyboardInterrupt):
            prefix_states(bert, base, texts, 2, 24, tmp_path / "cache")
        (making,) = (tmp_path / "cache").iterdir()
        if stop_at == 7:
            (making / "states.bf16").unlink()
    counted(monkeypatch)
    assert torch.equal(prefix_states(bert, base, texts, 2, 24, tmp_path / "cache").states, whole)


@pytest.mark.parametrize("fails", [False, True])
def test_of_two_that_ask_at_once_one_computes_and_the_other_waits(tiny_base, tmp_path, monkeypatch, fails):
    base = find_base(str(tiny_base))
    bert, computed = load_bert(base), []
    begun, waits = threading.Event(), threading.Event()
    real, lock = prefix._compute, fcntl.flock

    def compute(*args):
        computed.append(1)
        if len(computed) == 1:
            begun.set()
            assert waits.wait(30)
            if fails:
                shutil.rmtree(args[-2])  # as where a disk is full
                full()
        real(*args)

    def flock(*args):
        if begun.is_set():
            waits.set()
        lock(*args)

    monkeypatch.setattr(prefix, "_compute", compute)
    monkeypatch.setattr(fcntl, "flock", flock)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(prefix_states, bert, base, TEXTS, 2, 24, tmp_path)
        assert begun.wait(30)
        second = pool.submit(prefix_states, bert, base, TEXTS, 2, 24, tmp_path).result(30)
        if fails:
            assert first.exception(30) is None or isinstance(
                first.exception(30), FullError
            )  # none where the second was quicker to end
        else:
            assert torch.equal(first.result(30).states, second.states)
    assert len(computed) == 1 + fails
    assert [path.name for path in tmp_path.iterdir()] == [prefix_key(base, 2, 24, TEXTS)]


def test_a_computation_that_lacked_its_name_alone_gets_it(tiny_base, tmp_path, monkeypatch):
    base = find_base(str(tiny_base))
    bert = load_bert(base)
    whole = prefix_states(bert, base, TEXTS, 2, 24, tmp_path).states.clone()
    place = tmp_path / prefix_key(base, 2, 24, TEXTS)
    place.rename(tmp_path / f".making-{place.name}")
    calls = counted(monkeypatch)
    assert torch.equal(prefix_states(bert, base, TEXTS, 2, 24, tmp_path).states, whole)
    assert not calls
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def test_a_full_disk_in_the_middle_costs_the_mark_alone(tiny_base, tmp_path, monkeypatch):
    base = find_base(str(tiny_base))
    monkeypatch.setattr(prefix, "KEEP_BATCHES", 1)
    monkeypatch.setattr(prefix, "write_whole", full)
    assert len(prefix_states(load_bert(base), base, TEXTS, 2, 24, tmp_path)) == len(TEXTS)


def test_what_nobody_went_on_with_is_swept_after_a_week(tiny_base, tmp_path):
    base = find_base(str(tiny_base))
    old, held, new = (tmp_path / f".making-{name}" for name in ("old", "held", "new"))
    for folder in (old, held, new):
        folder.mkdir()
        (folder / "states.bf16").write_bytes(b"x")
    for folder in (old, held):
        os.utime(folder, (0, 0))
    handle = os.open(held, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    prefix_states(load_bert(base), base, TEXTS, 2, 24, tmp_path)
    os.close(handle)
    assert sorted(path.name for path in tmp_path.glob(".making-*")) == [".making-held", ".making-new"]


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: flip(place / "states.bf16"),
        lambda place: flip(place / "offsets.npy"),
        lambda place: (place / "manifest.json").unlink(),
        lambda place: (place / "manifest.json").write_text("{"),
        lambda place: (place / "states.bf16").write_bytes((place / "states.bf16").read_bytes()[:-2]),
        lambda place: (place / "manifest.json").write_text(json.dumps({"shape": [1, 1], "states": "x"})),
    ],
)
def test_a_damaged_cache_is_detected_and_rebuilt(tiny_base, tmp_path, damage):
    base = find_base(str(tiny_base))
    bert = load_bert(base)
    whole = prefix_states(bert, base, TEXTS, 2, 24, tmp_path).states.clone()
    place = tmp_path / prefix_key(base, 2, 24, TEXTS)
    damage(place)
    assert prefix._open(place) is None
    assert torch.equal(prefix_states(bert, base, TEXTS, 2, 24, tmp_path).states, whole)
    assert [path.name for path in tmp_path.iterdir()] == [place.name]


def vectors_of(tiny_base, cache, progress=None):
    model = Recommender(ModelPlan(base=str(tiny_base), max_tokens=24, rank=2), find_base(str(tiny_base)), seed=1)
    return model.space(TEXTS, cache, progress).base


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forget(place):
    next(place.glob("vectors-*")).unlink()


def of_other_texts(place):
    tensors = {"vectors": torch.zeros(1, 2)}
    save_file(tensors, next(place.glob("vectors-*")), {"sha256": hashlib.sha256(bytes(8)).hexdigest()})


def test_vectors_of_the_base_are_kept(tiny_base, tmp_path, monkeypatch):
    told = []
    first = vectors_of(tiny_base, tmp_path, lambda done, total: told.append((done, total)))
    assert told.count((len(TEXTS), len(TEXTS))) == 2  # hidden states, then vectors
    monkeypatch.setattr(Recommender, "_through", lambda *_: pytest.fail("computed again"))
    assert torch.equal(vectors_of(tiny_base, tmp_path), first)


@pytest.mark.parametrize("damage", [forget, lambda place: flip(next(place.glob("vectors-*"))), of_other_texts])
def test_damaged_vectors_are_computed_again(tiny_base, tmp_path, damage):
    whole = vectors_of(tiny_base, tmp_path)
    place = next(tmp_path.iterdir())
    damage(place)
    assert torch.equal(vectors_of(tiny_base, tmp_path), whole)
    assert next(place.glob("vectors-*")).stat().st_size > whole.nbytes  # and kept once more


def test_where_vectors_cannot_be_kept_they_are_computed(tiny_base, tmp_path, monkeypatch):
    whole = vectors_of(tiny_base, tmp_path)
    forget(next(tmp_path.iterdir()))
    monkeypatch.setattr(prefix, "save_file", full)
    assert torch.equal(vectors_of(tiny_base, tmp_path), whole)
    assert not list(next(tmp_path.iterdir()).glob("*vectors*"))


def test_the_address_depends_on_all_that_matters(tiny_base):
    base = find_base(str(tiny_base))
    keys = {
        prefix_key(base, 2, 24, TEXTS),
        prefix_key(base, 1, 24, TEXTS),
        prefix_key(base, 2, 25, TEXTS),
        prefix_key(base, 2, 24, TEXTS[::-1]),
        prefix_key(base, 2, 24, ("red", " guitar", *TEXTS[1:])),
        prefix_key(find_base("minilm"), 2, 24, TEXTS),
    }
    assert len(keys) == 6


def test_altered_weights_are_refused(monkeypatch):
    monkeypatch.setattr(prefix, "MINILM_SHA256", "0" * 64)
    with pytest.raises(BaseModelError, match="SHA-256"):
        find_base("minilm")


def test_a_base_that_is_no_bert(tmp_path, tiny_base, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BaseModelError, match="no BERT checkpoint"):
        find_base(str(tmp_path / "nowhere"))
    with pytest.raises(BaseModelError, match="holds no"):
        find_base(str(tmp_path))
    with pytest.raises(BaseModelError, match="top_layers must lie between 1 and 3"):
        Recommender(ModelPlan(base=str(tiny_base), top_layers=4), find_base(str(tiny_base)), 1)
    (tmp_path / "config.json").write_text('{"model_type": "nonsense"}')
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BaseModelError, match="cannot load"):
        load_bert(find_base(str(tmp_path)))


def test_a_cache_that_cannot_be_written(tiny_base, tmp_path):
    (tmp_path / "file").write_text("")
    base = find_base(str(tiny_base))
    with pytest.raises(BaseModelError, match="another --cache"):
        prefix_states(load_bert(base), base, TEXTS, 2, 24, tmp_path / "file")


def test_a_full_disk_is_told_and_leaves_nothing(tiny_base, tmp_path, monkeypatch):
    """Room is asked for first: writing into a mapped file of a full disk would end the process."""
    monkeypatch.setattr(os, "posix_fallocate", full)
    base = find_base(str(tiny_base))
    with pytest.raises(FullError, match="No space left on device; free space or pass another --cache"):
        prefix_states(load_bert(base), base, TEXTS, 2, 24, tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@given(st.lists(st.integers(1, 64), min_size=1, max_size=80), st.integers(64, 400))
def test_length_batches_hold_every_row_once_within_the_budget(lengths, budget):
    lengths = np.array(lengths)
    batches = length_batches(np.arange(len(lengths)), lengths, budget)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(rows) * lengths[rows].max() <= budget for rows in batches)


def test_a_base_without_its_words_is_refused(tmp_path):
    """Of missing files a tokenizer is made that takes every word for an unknown one."""
    folder = make_checkpoint(tmp_path / "base")
    for path in (folder / "vocab.txt", folder / "tokenizer.json"):
        path.unlink(missing_ok=True)
    with pytest.raises(BaseModelError, match=r"give a folder with tokenizer\.json or vocab\.txt"):
        tokenize(find_base(str(folder)), ["red guitar"], 8)
    (folder / "vocab.txt").write_text("")
    prefix._tokenizer.cache_clear()
    with pytest.raises(BaseModelError, match=r"give a folder with tokenizer\.json or vocab\.txt"):
        tokenize(find_base(str(folder)), ["red guitar"], 8)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, FullError), (errno.EACCES, BaseModelError)])
def test_a_full_disk_is_told_from_a_folder_that_is_closed(tiny_base, tmp_path, monkeypatch, number, kind):
    def refused(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(prefix, "_compute", refused)
    with pytest.raises(kind, match="cannot write the prefix cache"):
        prefix_states(load_bert(find_base(str(tiny_base))), find_base(str(tiny_base)), TEXTS, 2, 8, tmp_path)
