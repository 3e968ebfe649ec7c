import numpy as np
import pytest
import torch
from peft import PeftModel
from support.tiny_members import tiny_plan

import shared.model as model_module
from shared.lora import lora_parameters, save_adapter
from shared.model import (
    Batch,
    adapter_tensors,
    initial_state,
    load_adapter_tensors,
    positions_logits,
    released_names,
    seen_pairs,
    shared_parameters,
)
from shared.prefix import load_bert, tokenize
from shared.towers import CausalBlock, ItemTower, UserTower, recency_mean, similar
from shared.whiten import fit_whitening

TEXTS = ("red guitar", "blue drum kit", "the movie of the year", "tea", "a love story in space", "best film")


def batch_of(items, mask=None):
    items = torch.tensor(items)
    mask = torch.ones_like(items, dtype=torch.bool) if mask is None else torch.tensor(mask)
    return Batch(torch.arange(len(items)), items, torch.zeros_like(items), mask)


def stir(model, seed=0):
    """Give every adapter tensor some value, as after training."""
    draw = torch.Generator().manual_seed(seed)
    for _, parameter in lora_parameters(model.top.wrapped):
        parameter.data.add_(0.3 * torch.randn(parameter.shape, generator=draw))


def test_some_items_score_as_they_do_among_all(model, tmp_path):
    space = model.space(TEXTS, tmp_path)
    model.eval()
    x = model.encode(space)
    batch = batch_of([[0, 3, 0], [5, 1, 2]])
    at = (torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]))
    private = model_module.Private(np.array([5, 1, 0, 2, 9, 1]), 2, model.dim, model.plan)
    torch.nn.init.normal_(private.item.weight)
    among = torch.tensor([0, 2, 4, 5])
    with torch.no_grad():
        whole = positions_logits(model, space, x, private.items(model.items(x)), batch, at, private)
        v = private.items(model.items(x[among]), among)
        some = positions_logits(model, space, x, v, batch, at, private, among)
    torch.testing.assert_close(some, whole[:, among])


def test_a_catalogue_is_encoded_once_for_each_state_of_the_adapters(model, tmp_path, monkeypatch):
    space, other = model.space(TEXTS, tmp_path), model.space(TEXTS[:3], tmp_path)
    passes = []
    plain = model.encode_raw
    monkeypatch.setattr(model, "encode_raw", lambda states, rows: (passes.append(len(rows)), plain(states, rows))[1])
    stir(model)
    first = model.encode(space)
    model.encode(space).zero_()  # a caller's copy: what is kept stays as it was
    assert torch.equal(model.encode(space), first)
    assert passes == [len(TEXTS)]
    model.encode(other)
    with torch.no_grad():
        next(value for name, value in shared_parameters(model).items() if ".lora_B." in name).add_(0.5)
    assert not torch.equal(model.encode(space), first)
    assert passes == [len(TEXTS), 3, len(TEXTS)]


def test_a_fresh_adapter_changes_nothing(model, tmp_path, monkeypatch):
    space = model.space(TEXTS, tmp_path)
    assert torch.equal(space.whitening(model.encode_raw(space.states, np.arange(len(TEXTS)))), space.base)
    monkeypatch.setattr(model, "encode_raw", lambda *_: pytest.fail("the base's vectors are at hand"))
    model.encode(space).zero_()  # a caller's copy
    assert torch.equal(model.encode(space), space.base)
    assert space.base.any()


def test_what_a_layer_makes_of_places_without_a_token_stays_there(model, tmp_path):
    """An adapter may make no finite number of them."""
    stir(model)
    hidden, mask = model.space(TEXTS, tmp_path).states.padded(np.arange(len(TEXTS)))
    assert not mask.all()
    plain = model.top(hidden.float(), mask)
    layers = model.top.bert.encoder.layer[model.split :]
    spoilt = [
        layer.register_forward_hook(lambda _, given, out: out.masked_fill(~mask[..., None], torch.inf))
        for layer in layers
    ]
    torch.testing.assert_close(model.top(hidden.float(), mask), plain, rtol=0, atol=0)
    for hook in spoilt:
        hook.remove()


def test_peft_loads_the_adapter_and_gives_the_same_item_vectors(model, tmp_path, monkeypatch):
    monkeypatch.setattr(model_module, "BF16", False)
    stir(model)
    space = model.space(TEXTS, tmp_path / "cache")
    ours = model.encode_raw(space.states, np.arange(len(TEXTS)))
    lora = {name: value for name, value in adapter_tensors(model).items() if ".lora_" in name}
    save_adapter(model.top.wrapped, lora, tmp_path / "adapter")

    loaded = PeftModel.from_pretrained(load_bert(model.base), str(tmp_path / "adapter"))
    # PEFT's own report cannot tell a good load from a bad one: compare the tensors themselves.
    theirs = {name: value.detach().numpy() for name, value in lora_parameters(loaded)}
    assert theirs.keys() == lora.keys()
    assert all(np.array_equal(theirs[name], lora[name]) for name in lora)
    rows = []
    for ids in tokenize(model.base, TEXTS, model.plan.max_tokens):
        with torch.no_grad():
            hidden = loaded(input_ids=torch.tensor([ids])).last_hidden_state[0]
        rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
    torch.testing.assert_close(ours, torch.stack(rows), atol=1e-2, rtol=0)  # the cache's bfloat16
    assert (ours - model.space(TEXTS, tmp_path / "cache").base).abs().max() > 0.05  # and not just the base


def test_the_first_adapter_is_a_function_of_the_plan(tiny_base):
    one, released, base = initial_state(tiny_plan(tiny_base))
    two, _, _ = initial_state(tiny_plan(tiny_base))
    other, _, _ = initial_state(tiny_plan(tiny_base, "federation.seed=8"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one if "lora_A" in name)
    assert not any("lora_A" in name for name in released)
    assert "top2" in base


def test_what_each_family_releases(tiny_base):
    names = list(initial_state(tiny_plan(tiny_base))[0])
    everything = released_names(tiny_plan(tiny_base, "federation.family=fedavg"), names)
    exact = released_names(tiny_plan(tiny_base), names)
    heads = released_names(tiny_plan(tiny_base, "train.lora_lr=0.0"), names)
    assert everything == set(names)
    assert everything - exact == {name for name in names if ".lora_A." in name}
    assert not any(".lora_" in name for name in heads)


def test_under_a_promise_less_may_be_released(tiny_base):
    names = list(initial_state(tiny_plan(tiny_base))[0])

    def released(*settings):
        return released_names(tiny_plan(tiny_base, *settings), names)

    every = released("privacy.epsilon=8.0")
    assert every == released()
    towers = {name for name in every if ".lora_" not in name}
    assert released("privacy.epsilon=8.0", "privacy.releases=towers") == towers
    assert released("privacy.epsilon=8.0", "privacy.releases=outputs") == {
        "mix.parts.weight",
        "user.outward.bias",
        "user.outward.weight",
    }
    assert released("privacy.epsilon=8.0", "privacy.releases=mix") == {"mix.parts.weight"}
    assert released("privacy.releases=outputs") == every  # without a promise it says nothing


def test_targets_choose_the_projections(tiny_base):
    plan = tiny_plan(tiny_base, 'model.targets=["attention.output.dense"]', "model.top_layers=1")
    lora = [name for name in initial_state(plan)[0] if ".lora_B." in name]
    assert len(lora) == 1
    assert "layer.3.attention.output.dense" in lora[0]


def test_adapter_tensors_round_trip(model):
    stir(model)
    before = adapter_tensors(model)
    load_adapter_tensors(model, {name: value + 1 for name, value in before.items()})
    assert all(np.allclose(value, before[name] + 1) for name, value in adapter_tensors(model).items())


def test_untrained_towers_are_the_identity():
    x = torch.randn(3, 8)
    assert torch.equal(ItemTower(8, 5)(x), x)
    tower = UserTower(8, 4, 1, 2, 16, 6, 0.0)
    mean = torch.randn(2, 5, 8)
    assert torch.equal(tower(torch.randn(2, 5, 8), torch.zeros(2, 5, dtype=torch.long), mean), mean)


def test_an_event_sees_only_what_came_before():
    block = CausalBlock(8, 2, 0.0).eval()
    h = torch.randn(1, 6, 8)
    changed = h.clone()
    changed[0, 4:] += 1
    assert torch.allclose(block(h)[0, :4], block(changed)[0, :4], atol=1e-6)
    assert not torch.allclose(block(h)[0, 4:], block(changed)[0, 4:], atol=1e-3)


def test_recency_mean_by_hand():
    x = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    found = recency_mean(x, 0.5)
    assert torch.allclose(found[0, 0], torch.tensor([1.0, 0.0]))
    # 0.5 of the first and 1 of the second, length 1: (0.5, 1) / sqrt(1.25)
    assert torch.allclose(found[0, 1], torch.tensor([0.5, 1.0]) / 1.25**0.5)


def test_similarities_by_hand():
    u, v = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [1.0, 2.0]])
    assert similar(u, v, "dot").tolist() == [[11.0, 5.0]]
    # minus half the squared distance: (2, 2) -> -4, (0, 0) -> 0
    assert similar(u, v, "euclidean").tolist() == [[-4.0, 0.0]]


def test_whitening_makes_all_directions_equal():
    x = (
        torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.tensor([5.0, 2, 1, 0.5]))
        + 3
    )
    whitening = fit_whitening(x, ridge=1e-6)
    flat = (x - whitening.mean) @ whitening.matrix
    assert torch.allclose(flat.T @ flat / len(x), torch.eye(4), atol=1e-2)
    assert torch.allclose(whitening(x).norm(dim=1), torch.ones(len(x)), atol=1e-5)
    assert torch.isfinite(fit_whitening(torch.randn(2, 8))(torch.randn(3, 8))).all()  # fewer items than dimensions


def test_seen_pairs_name_each_item_once_and_only_the_past():
    batch = batch_of([[4, 2, 4, 9]], [[True, True, True, False]])
    at = (torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 2]))
    pairs = set(zip(*(part.tolist() for part in seen_pairs(batch, at)), strict=True))
    assert pairs == {(0, 4), (1, 4), (1, 2), (2, 4), (2, 2)}
    assert len(seen_pairs(batch, at)[0]) == 5


def test_the_repeat_weight_acts_on_seen_items_alone(model, tmp_path):
    model.eval()
    space = model.space(TEXTS, tmp_path)
    x = model.encode(space)
    batch = batch_of([[1, 3]])
    at = (torch.tensor([0]), torch.tensor([1]))
    before = positions_logits(model, space, x, model.items(x), batch, at).detach().clone()
    model.mix.parts.weight.data[0, 2] += 0.5
    moved = positions_logits(model, space, x, model.items(x), batch, at) - before
    assert torch.allclose(moved[0], torch.tensor([0.0, 5, 0, 5, 0, 0]), atol=1e-4)  # 0.5 times the scale of 10


def test_scores_do_not_depend_on_neighbours_or_padding(model, tmp_path):
    model.eval()
    space = model.space(TEXTS, tmp_path)
    x = model.encode(space)
    v = model.items(x)
    alone = positions_logits(model, space, x, v, batch_of([[1, 3]]), (torch.tensor([0]), torch.tensor([1])))
    both = batch_of([[5, 4, 2, 0], [1, 3, 0, 0]], [[True] * 4, [True, True, False, False]])
    beside = positions_logits(model, space, x, v, both, (torch.tensor([1]), torch.tensor([1])))
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=0)
