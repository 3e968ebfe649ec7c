import io
import json

import numpy as np
import pytest
from rich.console import Console

from shared.errors import ConfigError
from simulations.summary import figure, interval, paired, read_cells, resampled, summarise
from simulations.tables import figures_of


def test_resampled_means_have_the_spread_theory_says():
    values = np.random.default_rng(0).normal(2.0, 3.0, size=900)
    found = resampled(values, np.random.default_rng(1), 4000)
    assert found.shape == (4000,)
    assert found.mean() == pytest.approx(values.mean(), abs=0.01)
    assert found.std() == pytest.approx(values.std() / 30, rel=0.05)
    low, high = interval(found)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 30, rel=0.08)


def test_blocks_do_not_change_what_is_drawn(monkeypatch):
    values = np.arange(50.0)
    whole = resampled(values, np.random.default_rng(3), 40)
    monkeypatch.setattr("simulations.summary.BLOCK", 200)
    np.testing.assert_array_equal(whole, resampled(values, np.random.default_rng(3), 40))


def test_seeds_are_averaged_and_macro_is_the_mean_of_domains():
    cells = {"a": [np.array([[1.0, 0.0], [0.0, 0.0]])], "b": [np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])]}
    found = figure(cells)
    assert (found["a"]["mean"], found["b"]["mean"], found["macro"]["mean"]) == (0.25, 1.0, 0.625)
    assert found["worst"] == "a"
    assert found["b"]["low"] == found["b"]["high"] == 1.0
    assert found["a"]["seed_sd"] == pytest.approx(np.std([0.5, 0.0], ddof=1))


def test_paired_differences_cancel_what_users_have_in_common():
    draw = np.random.default_rng(0)
    ease = draw.normal(size=(1, 400))
    one, other = {"a": [ease + 0.1 + 0.01 * draw.normal(size=(1, 400))]}, {"a": [ease]}
    found = paired(one, other)["a"]
    assert 0.09 < found["low"] < 0.1 < found["high"] < 0.11
    assert found["p"] < 1e-9
    assert paired(other, other)["a"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "seed_sd": None, "p": 1.0}


def test_users_that_each_seed_deals_anew_make_no_interval_narrower():
    """Of one user under two seeds the mean is drawn; where owners differ the same people stand in all seeds."""
    values = np.random.default_rng(0).normal(size=(2, 500))
    same = figure({"a": [np.stack([values[0], -values[0]])]})["a"]
    assert same["low"] == same["high"] == 0.0
    dealt = figure({"a": [values[:1], values[1:, :400]]})["a"]  # owners of different size
    assert dealt["mean"] == pytest.approx((values[0].mean() + values[1, :400].mean()) / 2)
    assert dealt["seed_sd"] > 0
    wide = (np.sqrt(1 / 500) + np.sqrt(1 / 400)) / 2  # the mean of both widths
    assert dealt["high"] - dealt["low"] == pytest.approx(2 * 1.96 * wide, rel=0.1)
    assert paired({"a": [values[:1], values[1:, :400]]}, {"a": [values[:1], values[1:, :400]]})["a"]["p"] == 1.0


NOTES = ["loo: seen items are not masked", "order: no time is known"]


def write(out, seed, method, values, users="the same", **plan):
    place = out / f"seed-{seed}" / "homes" / "shop" / "cases"
    place.mkdir(parents=True, exist_ok=True)
    np.savez(place / f"{method}.npz", **{"hr@10": values, "ndcg@10": values})
    parts = {"warm item": {"cases": 2, "hr@10": float(values[0]), "ndcg@10": 0.5}}
    path = out / f"seed-{seed}" / "result.json"
    before = json.loads(path.read_text())["domains"]["shop"] if path.exists() else {}
    result = {"protocol": "loo", "ranking": "full", "seed": seed, "rounds": 3}
    path.write_text(json.dumps({**result, "domains": {"shop": {**before, "notes": NOTES, method: {"strata": parts}}}}))
    (path.parent / "fingerprints.json").write_text(json.dumps({"users": {"shop": users}}))
    (path.parent / "plan.json").write_text(json.dumps({"federation": {"seed": seed, **plan}}))


def test_a_method_that_some_seed_lacks_is_left_out(tmp_path):
    with pytest.raises(ConfigError, match="no cell"):
        summarise(tmp_path)
    for seed in (7, 8):
        write(tmp_path, seed, "local", np.array([0.2, 0.4]))
        write(tmp_path, seed, "sasrec", np.array([0.1, 0.1 * (seed - 6)]))
    write(tmp_path, 7, "pooled", np.array([1.0, 1.0]))
    runs = [tmp_path / "seed-7", tmp_path / "seed-8"]
    cells, lacking = read_cells(runs)
    assert (set(cells), lacking) == ({"local", "sasrec"}, {"pooled": ["seed-8"]})
    assert cells["local"]["shop"]["ndcg@10"][0].shape == (2, 2)
    found = summarise(tmp_path)
    assert found["incomplete"] == {"pooled": ["seed-8"]}
    assert found["seeds"] == [7, 8]
    assert found["notes"] == {"shop": ["order: no time is known"]}
    assert found["figures"]["sasrec"]["ndcg@10"]["shop"]["mean"] == pytest.approx(0.125)
    assert found["paired"]["differences"]["sasrec"]["shop"]["mean"] == pytest.approx(-0.175)
    warm = {"cases": 2, "hr@10": pytest.approx(0.2), "ndcg@10": 0.5}
    assert found["strata"]["local"] == {"shop": {"warm item": warm}, "all": {"warm item": warm}}  # no cases kept by it
    assert set(summarise(tmp_path, [7])["figures"]) == {"local", "sasrec", "pooled"}  # the seeds asked for alone
    with pytest.raises(ConfigError, match="no cell that every seed finished"):
        summarise(tmp_path, [7, 9])


def test_a_stratum_has_an_interval_of_its_own_cases(tmp_path):
    """Half of the cases are of the stratum; domains are taken together, and differences are of the same cases."""
    draw = np.random.default_rng(0)
    gain, nan = draw.normal(0.1, 0.3, size=400), np.full(400, np.nan)
    own = draw.uniform(size=400)
    for method, values in (("local", own), ("personal", own + gain)):
        write(tmp_path, 7, method, np.concatenate([values, values]))
        place = tmp_path / "seed-7" / "homes" / "shop" / "cases" / f"{method}.npz"
        with np.load(place) as kept:
            np.savez(place, **kept, **{"ndcg@10 of warm item": np.concatenate([values, nan])})
    found = summarise(tmp_path)
    assert set(found["figures"]["local"]) == {"hr@10", "ndcg@10"}
    warm = found["strata"]["personal"]["all"]["warm item"]
    assert warm["less"]["mean"] == pytest.approx(gain.mean())
    assert warm["less"]["high"] - warm["less"]["low"] == pytest.approx(2 * 1.96 * 0.3 / 20, rel=0.15)
    assert warm["low"] < (own + gain).mean() < warm["high"]
    assert "less" not in found["strata"]["local"]["all"]["warm item"]  # it is the reference


def test_what_some_cell_lacks_has_no_figure(tmp_path):
    """Cells of before knew fewer metrics."""
    for method in ("local", "personal"):
        write(tmp_path, 7, method, np.array([0.2, 0.4]))
    place = tmp_path / "seed-7" / "homes" / "shop" / "cases" / "local.npz"
    with np.load(place) as kept:
        np.savez(place, **kept, **{"hr@5": np.zeros(2)})
    path = tmp_path / "seed-7" / "result.json"
    result = json.loads(path.read_text())
    cold = {"cases": 1, "hr@10": 1.0, "ndcg@10": 1.0}
    result["domains"]["shop"]["local"]["strata"]["cold item"] = cold
    path.write_text(json.dumps(result))
    found = summarise(tmp_path)
    for method in ("local", "personal"):
        assert set(found["figures"][method]) == {"hr@10", "ndcg@10"}
        assert set(found["strata"][method]["all"]) == {"warm item"}


def test_seeds_of_other_users_or_plans_are_not_pooled(tmp_path):
    write(tmp_path, 7, "local", np.array([0.2, 0.4]))
    write(tmp_path, 8, "local", np.array([0.2, 0.4, 0.6]), users="others")
    cells, _ = read_cells([tmp_path / "seed-7", tmp_path / "seed-8"])
    assert [part.shape for part in cells["local"]["shop"]["ndcg@10"]] == [(1, 2), (1, 3)]
    assert summarise(tmp_path)["figures"]["local"]["ndcg@10"]["shop"]["mean"] == pytest.approx((0.3 + 0.4) / 2)
    write(tmp_path, 8, "local", np.array([0.2, 0.4]), rounds=99)
    with pytest.raises(ConfigError, match="different plans or protocols"):
        summarise(tmp_path)


def test_the_table_names_each_methods_worst_domain_where_there_are_several(tmp_path):
    def shown(cells):
        figures = {method: {m: figure(domains) for m in ("hr@10", "ndcg@10")} for method, domains in cells.items()}
        about = {
            "ranking": "full",
            "protocol": "loo",
            "seeds": [7],
            "figures": figures,
            "incomplete": {"pooled": ["seed-8"]},
        }
        console = Console(width=100, file=io.StringIO())
        console.print(figures_of({**about, "paired": {"reference": "local", "differences": {}}}))
        return console.file.getvalue()

    good, bad = [np.ones((1, 3))], [np.zeros((1, 3))]
    several = shown({"local": {"a": good, "b": bad}, "sasrec": {"a": bad, "b": good}})
    assert "worst domain by NDCG@10: local only b, SASRec a" in several
    assert "left out, for some seed lacks it: pooled (seed-8)" in several
    assert "macro" in several
    one = shown({"local": {"a": good}})
    assert "worst domain" not in one
    assert "macro" not in one  # of one domain it would say all again
