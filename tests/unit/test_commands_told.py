"""What the three command lines say of themselves: help, and the README that names all they take."""

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path

import click
import pytest
import typer
from support.commands import APPS, run

from shared.plan import SECTIONS
from simulations.scenario import Scenario

README = Path(__file__).resolve().parents[2] / "README.md"
COMMANDS = [
    ("simulations",),
    ("simulations", "run"),
    ("simulations", "evaluate"),
    ("simulations", "scenario"),
    ("simulations", "passport"),
    ("simulations", "plot"),
    ("simulations", "map"),
    ("simulations", "audit-privacy"),
    ("client",),
    ("client", "recommend"),
    ("client", "serve"),
    ("client", "publish"),
    ("client", "adopt"),
    ("client", "explain"),
    ("client", "export"),
    ("client", "status"),
    ("client", "evaluate"),
    ("client", "budget"),
    ("client", "audit"),
    ("client", "audit", "queue"),
    ("client", "audit", "log"),
    ("client", "key"),
    ("client", "export-user"),
    ("client", "forget"),
    ("client", "passport"),
    ("client", "passport", "book"),
    ("client", "passport", "issue"),
    ("server",),
    ("server", "certs"),
    ("server", "serve"),
    ("server", "recommend"),
    ("server", "rounds"),
    ("server", "export"),
]


def options(command: click.Command) -> set[str]:
    found = {option for param in command.params if param.param_type_name == "option" for option in param.opts}
    below = getattr(command, "commands", {})
    return found.union(*(options(part) for part in below.values())) if below else found


def paths(command: click.Command, words: tuple[str, ...]) -> list[tuple[str, ...]]:
    below = getattr(command, "commands", {})
    return [words, *(path for part, inner in below.items() for path in paths(inner, (*words, part)))]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_every_command_has_help(words, option):
    result = run(*words, option)
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


@pytest.mark.parametrize("name", APPS)
def test_the_list_of_commands_is_complete(name):
    assert set(paths(typer.main.get_command(APPS[name]), (name,))) == {c for c in COMMANDS if c[0] == name}


@pytest.mark.parametrize("name", APPS)
def test_readme_names_every_command_and_option(name):
    text = README.read_text(encoding="utf-8")
    assert f"python -m {name}" in text
    command = typer.main.get_command(APPS[name])
    missing = [option for option in sorted(options(command)) if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)]
    missing += [
        part for part in getattr(command, "commands", {}) if not re.search(rf"python -m {name}.* {part}\b", text)
    ]
    assert missing == []


def test_readme_names_every_setting_with_its_default():
    text = README.read_text(encoding="utf-8")
    for section, cls in SECTIONS.items():
        for field in fields(cls):
            default = f"[{', '.join(field.default)}]" if isinstance(field.default, tuple) else field.default
            default = str(default).lower() if isinstance(default, bool) else default  # as --set takes it
            assert f"| `{section}.{field.name}` | {default} |" in text


def test_readme_names_every_key_of_a_scenario_with_its_default():
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    told = {}
    for row in rows:
        keys, usually = row.strip("| ").split(" | ")[:2]
        told |= dict(zip(re.findall(r"`(\w+)`", keys), usually.split(", "), strict=False))
    for field in fields(Scenario):
        if field.default is MISSING:
            usual = "must be there"
        else:
            usual = json.dumps(list(field.default) if isinstance(field.default, tuple) else field.default)
            usual = usual if isinstance(field.default, int) else f"`{usual}`"
        assert told[field.name] == usual


def test_help_tells_of_other_commands_and_of_arguments():
    found = {name: run("simulations", *name.split(), "--help").stdout for name in ("", "scenario")}
    assert all(name in found[""] for name in ("evaluate", "scenario", "audit-privacy", "passport"))
    assert "private-kinds" in found["scenario"]  # what its argument may be


def test_the_page_on_serving_tells_the_same_in_both_languages():
    """Calls, fields, codes, files: all that stands in code there."""
    told = [(README.parent / "docs" / name).read_text(encoding="utf-8") for name in ("serving.md", "serving.zh.md")]
    assert re.findall(r"```python.*?```", told[0], re.DOTALL) == re.findall(r"```python.*?```", told[1], re.DOTALL)
    code = [set(re.findall(r"`([^`\n]+)`", text)) for text in told]
    english, chinese = ({one for one in found if one != "Why?" and "{" not in one} for found in code)  # translated
    assert len(english) > 80
    assert english == chinese
