import hashlib
import json
import re
from dataclasses import dataclass

import numpy as np
import pytest

from client.dataset import Domain, read_domain
from client.splits import Split, split
from shared.errors import ConfigError
from simulations.world import FOLLOW, SUBTOPICS, write_world
from simulations.world_words import TOPICS

DOMAINS = ("video", "news", "shop", "social")


@dataclass
class World:
    domains: dict[str, Domain]
    splits: dict[str, Split]
    truth: dict

    def items(self, name, what):
        truth = self.truth["items"][name]
        return np.array([truth[item][what] for item in self.domains[name].catalog.ids])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    domains = {name: read_domain(folder) for name, folder in write_world(out).items()}
    splits = {name: split(domain.interactions, "loo") for name, domain in domains.items()}
    return World(domains, splits, json.loads((out / "world.json").read_text()))


def digest(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]


def hit_rate(scores, targets, k=10):
    """HR@k in full ranking; scores (cases, items), targets (cases,)."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    return float(((scores > own).sum(axis=1) < k).mean())


def popularity(parts, items):
    counts = np.bincount(parts.train.items, minlength=items) + 1e-9 * np.arange(items)  # ties broken by row
    return np.tile(counts, (len(parts.test), 1))


def zero_shot(parts, texts):
    """Recency-weighted bag of words of the history against every text: a poor man's encoder, seen items struck."""
    bags = [re.findall(r"[a-z]+|[\u4e00-\u9fff]", text.lower()) for text in texts]
    words = {word: place for place, word in enumerate(sorted({word for bag in bags for word in bag}))}
    vectors = np.zeros((len(texts), len(words)))
    for row, bag in enumerate(bags):
        vectors[row, [words[word] for word in bag]] = 1
    vectors *= np.log(len(texts) / vectors.sum(axis=0))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.zeros((len(parts.test), len(texts)))
    for case in range(len(parts.test)):
        history = parts.test.histories.row(case)
        scores[case] = vectors @ (0.8 ** np.arange(len(history))[::-1] @ vectors[history])
        scores[case, history] = -1
    return scores


def steps(parts, subtopics):
    """How often each subtopic follows another in training, (SUBTOPICS, SUBTOPICS), rows sum to one."""
    counts = np.full((SUBTOPICS, SUBTOPICS), 0.02)
    for user in range(len(parts.train)):
        row = subtopics[parts.train.row(user)]
        np.add.at(counts, (row[:-1], row[1:]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


def sequential(parts, subtopics, chances):
    """Chance of the next subtopic after the last, popularity within it, seen items struck."""
    counts = np.bincount(parts.train.items, minlength=len(subtopics))
    last = [int(subtopics[parts.test.histories.row(case)[-1]]) for case in range(len(parts.test))]
    scores = np.log(chances[last][:, subtopics]) + 0.3 * np.log(counts + 1.0)
    for case in range(len(parts.test)):
        scores[case, parts.test.histories.row(case)] = -99
    return scores


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for out in ("a", "b"):
        write_world(tmp_path / out, seed=3, users=40, items=60)
    write_world(tmp_path / "c", seed=4, users=40, items=60)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def test_a_domain_does_not_depend_on_how_many_others_there_are(tmp_path):
    write_world(tmp_path / "a", users=40, items=60)
    write_world(tmp_path / "b", users=40, items=60, domains=("news", "shop", "shop2"))
    assert (tmp_path / "a/shop/shop.item").read_bytes() == (tmp_path / "b/shop/shop.item").read_bytes()
    assert (tmp_path / "b/shop2/shop2.item").read_bytes() != (tmp_path / "b/shop/shop.item").read_bytes()


@pytest.mark.parametrize(
    "how", [{"domains": ("video", "video")}, {"domains": ("weather",)}, {"items": 20}, {"users": 0}, {"domains": ()}]
)
def test_sizes_and_names_that_make_no_world_are_refused(tmp_path, how):
    with pytest.raises(ConfigError, match="world: expected"):
        write_world(tmp_path, **how)
    assert not list(tmp_path.iterdir())


def test_it_reads_without_a_problem_and_has_the_promised_size(world):
    for name, domain in world.domains.items():
        data = domain.interactions
        assert domain.name == name
        assert [p for report in domain.reports for p in report.problems] == []
        assert len(domain.catalog) == 600
        assert 6_000 < len(data) < 12_000
        lengths = np.bincount(data.users)
        assert 8 <= np.median(lengths) <= 16
        assert (lengths <= 3).mean() > 0.03  # cold users
        counts = np.bincount(world.splits[name].train.items, minlength=600)
        assert 5 <= (counts == 0).sum() < 60
        assert 40 < (counts <= 2).sum() < 150  # cold items
        assert len(np.unique(data.behaviours)) >= 4
        days = (data.times.max() - data.times.min()) / 86_400
        assert 150 < days <= 200
        assert len(split(data, "time").test) > 200


def test_most_people_live_in_several_domains(world):
    ids = [set(domain.interactions.user_ids) for domain in world.domains.values()]
    counts = [sum(user in group for group in ids) for user in set().union(*ids)]
    assert 0.5 < np.mean(np.array(counts) >= 2) < 0.75
    assert max(counts) == 4


def test_texts_name_the_topic_and_some_are_chinese(world):
    for name, domain in world.domains.items():
        texts = domain.catalog.texts
        assert all(texts)
        assert len(set(texts)) > 500
        assert 10 < sum(bool(re.search(r"[\u4e00-\u9fff]", text)) for text in texts) < 90
        nouns = [TOPICS[s // 4].subtopics[s % 4] for s in world.items(name, "subtopic")]
        named = [any(noun.lower() in text.lower() for noun in some) for some, text in zip(nouns, texts, strict=True)]
        assert np.mean(named) > 0.9


def test_people_seldom_repeat_an_item(world):
    for domain in world.domains.values():
        pairs = domain.interactions.users.astype(np.int64) * 600 + domain.interactions.items
        assert len(np.unique(pairs)) / len(pairs) > 0.97


@pytest.mark.parametrize("name", DOMAINS)
def test_popularity_is_beaten_by_text_and_text_by_what_can_be_learnt(world, name):
    parts, texts = world.splits[name], world.domains[name].catalog.texts
    targets, subtopics = parts.test.targets.items, world.items(name, "subtopic")
    popular = hit_rate(popularity(parts, len(texts)), targets)
    by_text = hit_rate(zero_shot(parts, texts), targets)
    learnt = hit_rate(sequential(parts, subtopics, steps(parts, subtopics)), targets)
    assert popular < 0.08
    assert by_text > 1.3 * popular
    assert learnt > 2 * by_text


def test_what_is_learnt_in_three_domains_holds_in_the_fourth(world):
    others = sum(steps(world.splits[name], world.items(name, "subtopic")) for name in DOMAINS[:3]) / 3
    parts, subtopics = world.splits["social"], world.items("social", "subtopic")
    targets = parts.test.targets.items
    assert hit_rate(sequential(parts, subtopics, others), targets) > 0.25


def test_style_moves_people_the_same_way_everywhere(world):
    for name, parts in world.splits.items():
        styles = world.items(name, "style")
        share = np.bincount(styles[parts.train.items], minlength=6) / np.bincount(styles, minlength=6)
        assert share[0] > 2 * share[5]


def test_each_step_leads_to_exactly_one_other():
    assert sorted(FOLLOW) == list(range(SUBTOPICS))
    assert all(target != place for place, target in enumerate(FOLLOW))
