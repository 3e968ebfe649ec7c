"""A model given away: PEFT reads its adapter, and the hashes are those of the files."""

import hashlib
import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from support.tiny_federation import begin_run
from support.tiny_members import tiny_plan
from typer.testing import CliRunner

from server import registry
from server.__main__ import app
from server.export import export
from shared.errors import ConfigError
from shared.prefix import find_base, load_bert


@pytest.fixture
def run(tiny_base, tmp_path):
    begin_run(tmp_path / "run", tiny_plan(tiny_base, "federation.family=affinity"))
    return tmp_path / "run"


def test_what_was_exported_is_the_runs_adapter(run, tiny_base, tmp_path):
    result = CliRunner().invoke(app, ["export", "--run-dir", str(run), "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 0, result.output
    manifest = json.loads(result.stdout)
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert sorted(manifest["sha256"]) == [
        "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "towers.safetensors",
    ]  # fmt: skip
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest
    assert str(tiny_base) not in (tmp_path / "out" / "manifest.json").read_text()
    adapter = registry.load_state(run).adapter
    towers = load_file(tmp_path / "out" / "towers.safetensors")
    lora = {name for name in adapter if ".lora_" in name}
    assert set(towers) == set(adapter) - lora
    for name, value in towers.items():
        np.testing.assert_array_equal(value, adapter[name])
    wrapped = PeftModel.from_pretrained(load_bert(find_base(str(tiny_base))), tmp_path / "out" / "adapter")
    found = {name.replace(".default.", "."): value for name, value in wrapped.named_parameters() if ".lora_" in name}
    assert set(found) == lora
    for name in lora:
        torch.testing.assert_close(found[name].detach(), torch.from_numpy(adapter[name]))


def test_a_domains_own_mixture(run, tmp_path):
    state = registry.load_state(run)
    own = {"tower\nvideo\nmix.parts.weight": np.ones_like(state.adapter["mix.parts.weight"])}
    registry.save_state(run, type(state)(**{**vars(state), "memory": own}))
    export(run, tmp_path / "video", "video")
    found = load_file(tmp_path / "video" / "towers.safetensors")["mix.parts.weight"]
    np.testing.assert_array_equal(found, state.adapter["mix.parts.weight"] + 1)


def test_misuse(run, tmp_path):
    with pytest.raises(ConfigError, match="holds nothing of 'shoes' alone"):
        export(run, tmp_path / "out", "shoes")
    with pytest.raises(ConfigError, match="--round: expected 0 to 0, found 3"):
        export(run, tmp_path / "out", None, 3)
    with pytest.raises(ConfigError, match="new or an empty folder"):
        export(run, run)
    assert not (tmp_path / "out").exists()


def test_the_table_of_rounds(run):
    registry.append_round(
        run,
        {
            "round": 1, "domains": ["shop", "video"], "refused": {"news": "is all zeros"}, "failed": {}, "seconds": 2.5,
            "bytes": {"shop": {"down": 2**20, "up": 2**19}}, "weights": {}, "quality": {"shop": 0.1},
        },
    )  # fmt: skip
    result = CliRunner().invoke(app, ["rounds", "--run-dir", str(run)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for word in ("shop, video", "news: is all zeros", "2.5", "1.0", "0.5", "shop 0.10", "family affinity"):
        assert word in result.stdout
    told = CliRunner().invoke(app, ["rounds", "--run-dir", str(run), "--json"])
    assert json.loads(told.stdout)["rounds"][0]["quality"] == {"shop": 0.1}
