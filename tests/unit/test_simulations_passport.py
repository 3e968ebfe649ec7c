"""The command that measures taste passports, on two domains of the tiny world."""

import json

from support import commands

from shared.console import Bars


def test_the_command_shows_how_far_the_reading_of_texts_is(tiny_world, tiny_base, tmp_path, monkeypatch):
    ticks = []
    monkeypatch.setattr(Bars, "tick", lambda self, what, done, total: ticks.append((what, done == total)))
    words = ("--epsilons", 2, "--book", 8, "--draws", 1, "--cache", tmp_path, "--set", f"model.base={tiny_base}")
    done = commands.run("simulations", "passport", tiny_world["video"], tiny_world["shop"], *words, "--json")
    assert done.exit_code == 0, done.output
    assert set(json.loads(done.stdout)["figures"]) == {"popularity", "epsilon 2", "no noise", "raw history"}
    assert {("video: reading texts", True), ("shop: reading texts", True)} <= set(ticks)
