"""The pages' files: every word in both languages, every key that is used, nothing from elsewhere."""

import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "shared/web"
PAGES = [folder for folder in (ROOT / "client/web", ROOT / "server/web") if folder.is_dir()]
LANGUAGES = {"en", "zh"}
MOST_LINES = 250
# Keys that are put together from what an answer holds; whoever asks for one that is missing shows the bare name.
MADE = ("behaviour.", "column.", "error.", "look.")


def table(folder):
    pairs = json.loads((folder / "words.json").read_text(encoding="utf-8"), object_pairs_hook=list)
    names = [name for name, _ in pairs]
    assert len(set(names)) == len(names), "a key stands there twice"
    return {name: dict(words) for name, words in pairs}


def texts(folder, *suffixes):
    return {
        path: path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.suffix in suffixes and "vendor" not in path.parts
    }


@pytest.mark.parametrize("folder", [SHARED, *PAGES], ids=lambda one: one.parent.name)
def test_every_word_is_there_in_both_languages(folder):
    for key, words in table(folder).items():
        assert words.keys() == LANGUAGES, key
        assert all(text.strip() for text in words.values()), key
        slots = [sorted(re.findall(r"{\w+}", text)) for text in words.values()]
        assert slots[0] == slots[1], key
        latin_only = not re.search(r"[\u4e00-\u9fffεδ]", words["zh"])
        assert not latin_only or "{" in words["zh"] or words["zh"] == "、", key


def code_of(*folders):
    return "".join(text for folder in folders for text in texts(folder, ".js", ".html").values())


def unused(keys, code):
    literals = set(re.findall(r"""["'`]([\w.]+)["'`]""", code))
    made = [re.escape(one).replace(r"\$\{\}", r".+") for one in patterns(code)]
    return {key for key in keys if key not in literals and not any(re.fullmatch(one, key) for one in made)}


@pytest.mark.parametrize("folder", PAGES, ids=lambda one: one.parent.name)
def test_every_key_that_is_used_is_there_and_the_other_way_round(folder):
    own, common = table(folder), table(SHARED)
    assert not own.keys() & common.keys()
    code = code_of(folder, SHARED)
    named = set(re.findall(r"""\bt\(["'`]([\w.]+)["'`]""", code)) | set(re.findall(r'data-t[\w-]*="([\w.]+)"', code))
    assert named - own.keys() - common.keys() == set()
    assert unused(own, code) == set()
    assert unused({key for key in common if not key.startswith(MADE)}, code_of(SHARED, *PAGES)) == set()


def patterns(code):
    """What t(`a.${b}`) may ask for: "a.${}"."""
    return [re.sub(r"\$\{[^}]*\}", "${}", one) for one in re.findall(r"`([\w.]*\$\{[^`]*)`", code)]


@pytest.mark.parametrize("folder", [SHARED, *PAGES], ids=lambda one: one.parent.name)
def test_pages_are_small_plain_and_from_here_alone(folder):
    for path, text in texts(folder, ".js", ".html", ".css", ".svg").items():
        assert len(text.splitlines()) <= MOST_LINES, path
        found = [one for one in re.findall(r"https?://[^\s\"')]+", text) if one != "http://www.w3.org/2000/svg"]
        assert found == [], path
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=\"", text), (
            path
        )  # the policy of shared/http.py forbids it


def test_what_is_vendored_is_small_and_has_its_licence():
    for folder in (SHARED / "vendor").iterdir():
        assert "Permission is hereby granted" in (folder / "LICENSE").read_text(encoding="utf-8")
        assert sum(path.stat().st_size for path in folder.iterdir()) < 250_000


def test_an_installed_copy_has_the_pages():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    for folder in (SHARED, *PAGES):
        assert "web/**/*" in data[folder.parent.name]
