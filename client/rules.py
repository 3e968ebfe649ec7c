"""What a domain never shows, or not to people below an age: words, categories, items, from a file of its owner.

    [block]
    words = ["cigarettes", "香烟"]
    items = ["B0123"]
    categories = {brand = ["Acme"]}

    [age.18]
    categories = {genre = ["Horror"]}

A word strikes an item whose title or text holds it whole, case aside; in scripts without spaces, as part of any.
"""

import hashlib
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shared.attributes import values_of
from shared.catalog import Catalog
from shared.config import read_section, read_toml
from shared.errors import ConfigError

NOBODY = 1000  # a least age that nobody has
OLDEST_GATE = 150
REVIEWED = "review"  # the name of the rule that reviewers of complaints make
# Thai and its neighbours, Khmer, kana, Han: nothing stands between their words.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
LETTER = rf"[^\W{UNSPACED}]"
RUN = re.compile(f"{LETTER}+")
HIDDEN = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))  # what splits a word without being seen

Ages = npt.NDArray[np.int16]
Codes = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Listed:
    """One section of the file."""

    words: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)  # column -> values


@dataclass(frozen=True)
class Rule:
    """One line of a section, under a name that may stand in a log: it holds none of what it looks for."""

    name: str  # block.words, age.18.categories.genre
    least_age: int
    words: tuple[str, ...] = ()
    items: frozenset[str] = frozenset()
    column: str = ""
    values: frozenset[str] = frozenset()  # case folded


@dataclass(frozen=True)
class Rules:
    """All rules of a domain, the strictest first."""

    rules: tuple[Rule, ...] = ()
    version: str = "none"

    def with_reviewed(self, blocked: Iterable[str]) -> "Rules":
        """Beside the file's own, those that a review of complaints blocked."""
        items = frozenset(blocked)
        if not items:
            return self
        digest = hashlib.sha256("\0".join([self.version, *sorted(items)]).encode("utf-8", "surrogatepass"))
        return Rules((Rule(REVIEWED, NOBODY, items=items), *self.rules), digest.hexdigest()[:12])


def check_rules(named: Path | None) -> None:
    """Raises ConfigError where a file of rules was named that is not there: no rules would count then, in silence."""
    if named is not None and not named.is_file():
        raise ConfigError(f"--rules: expected a file at {named}; check the path")


def read_rules(path: Path) -> Rules:
    """The rules of a file; none where there is no such file. Raises ConfigError, one line that names the key."""
    if not path.exists():
        return Rules()
    table = read_toml(path)
    rules = []
    try:
        if unknown := sorted(table.keys() - {"block", "age"}):
            raise ConfigError(f"has no section [{unknown[0]}]; it knows [block] and [age.YEARS]")
        rules += _rules("block", NOBODY, table.get("block", {}))
        for years, section in sorted(table.get("age", {}).items(), key=lambda pair: pair[0].zfill(9), reverse=True):
            where = f"age.{years}"
            if not years.isdecimal() or not 1 <= int(years) <= OLDEST_GATE:
                raise ConfigError(f"[{where}]: expected years from 1 to {OLDEST_GATE}, such as [age.16]")
            if not isinstance(section, dict):
                raise ConfigError(f"{where}: expected a section [{where}], found {section!r}")
            rules += _rules(where, int(years), section)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return Rules(tuple(rules), hashlib.sha256(path.read_bytes()).hexdigest()[:12])


def _rules(where: str, least_age: int, section: Mapping[str, object]) -> list[Rule]:
    listed = read_section(Listed, section, where)
    columns = {f"{where}.categories.{column}": values for column, values in listed.categories.items()}
    for key, values in {f"{where}.words": listed.words, f"{where}.items": listed.items, **columns}.items():
        if bad := [value for value in values if not isinstance(value, str) or not _plain(value)]:
            raise ConfigError(f"{key}: expected texts that are not empty, found {bad[0]!r}")
    found = [Rule(f"{where}.items", least_age, items=frozenset(listed.items))] if listed.items else []
    found += [Rule(f"{where}.words", least_age, words=listed.words)] if listed.words else []
    for column, values in listed.categories.items():
        name = f"{where}.categories.{column}"
        found.append(Rule(name, least_age, column=column, values=frozenset(map(str.casefold, values))))
    return found


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a catalogue."""

    rules: Rules
    least_age: Ages  # (items,) 0 for whom all may see, NOBODY for what is blocked
    by: Codes  # (items,) the rule that says so, -1 where none does
    counts: Mapping[str, int]  # items that each rule strikes, also where a stricter one does

    @property
    def for_all(self) -> npt.NDArray[np.bool_]:
        """(items,) what somebody of an unknown age may see."""
        found: npt.NDArray[np.bool_] = self.least_age == 0
        return found

    @cached_property
    def gates(self) -> list[int]:
        """The ages at which more is to be seen."""
        return sorted({int(age) for age in np.unique(self.least_age)} - {0, NOBODY})

    def gate(self, age: int | None) -> int:
        """The last gate that somebody of an age has passed; 0 for none, and for an age that nobody told."""
        passed = 0 if age is None else bisect_right(self.gates, age)
        return self.gates[passed - 1] if passed else 0

    def of_more(self, catalog: Catalog) -> "Verdict":
        """The same of the catalogue with more items behind those that were judged."""
        later = judge(self.rules, catalog, len(self.least_age))
        counts = {name: count + later.counts[name] for name, count in self.counts.items()}
        ages, by = np.concatenate([self.least_age, later.least_age]), np.concatenate([self.by, later.by])
        return replace(self, least_age=ages, by=by, counts=counts)


def spelt(verdict: Verdict) -> str:
    """Version, names and counts, for a log: none of what the rules look for."""
    parts = (f"{name} strikes {count:,}" for name, count in verdict.counts.items())
    return f"{verdict.rules.version}: {', '.join(parts) or 'none'}"


def judge(rules: Rules, catalog: Catalog, first: int = 0) -> Verdict:
    """Which items, from the ``first`` on, each rule strikes; of several the strictest counts.

    Raises ConfigError for an unknown column.
    """
    items = len(catalog) - first
    least_age, by = np.zeros(items, np.int16), np.full(items, -1, np.int16)
    counts = {}
    texts: list[str] = []
    for place, rule in enumerate(rules.rules):
        if rule.words and not texts:
            pairs = zip(catalog.titles[first:], catalog.texts[first:], strict=True)
            texts = [_plain(f"{title}\n{text}") for title, text in pairs]
        struck = _struck(rule, catalog, texts, first)
        counts[rule.name] = int(struck.sum())
        stricter = struck & (least_age < rule.least_age)
        least_age[stricter], by[stricter] = rule.least_age, place
    return Verdict(rules, least_age, by, counts)


def _struck(rule: Rule, catalog: Catalog, texts: Sequence[str], first: int) -> npt.NDArray[np.bool_]:
    if rule.items:
        return np.array([item in rule.items for item in catalog.ids[first:]], bool)
    if rule.words:
        return np.fromiter(map(holds_any(rule.words), texts), bool, len(texts))
    if rule.column not in catalog.columns:
        known = ", ".join(catalog.columns) or "none"
        raise ConfigError(f"rules: {rule.name}: {catalog.domain} has no column {rule.column!r}; it has {known}")
    cells = catalog.columns[rule.column]
    pairs = islice(zip(cells, values_of(cells), strict=True), first, None)  # the whole column tells what parts values
    return np.array(
        [cell.casefold() in rule.values or any(v.casefold() in rule.values for v in values) for cell, values in pairs],
        bool,
    )


def holds_any(words: Sequence[str]) -> Callable[[str], bool]:
    """Whether a text that ``_plain`` brought to one form holds one of the words.

    Most words are one run of letters: they are looked up among the text's own, however many there are.
    """
    plain = [_plain(word) for word in words]
    single = {word for word in plain if RUN.fullmatch(word)}
    # Of the others the longest part is looked for first: that is quick, and mostly enough.
    rest = [(max(word.split(), key=len), re.compile(_whole(word))) for word in plain if word not in single]

    def holds(text: str) -> bool:
        if not single.isdisjoint(RUN.findall(text)):
            return True
        near = [whole for part, whole in rest if part in text]
        return any(whole.search(text) for whole in near)

    return holds


def _whole(word: str) -> str:
    """No letter may go on before or behind; letters of a script without spaces do not go on."""
    before = f"(?<!{LETTER})" if re.match(LETTER, word) else ""
    behind = f"(?!{LETTER})" if re.match(LETTER, word[-1]) else ""
    return before + re.escape(word).replace(r"\ ", r"\s+") + behind


def _plain(text: str) -> str:
    """One form for all ways to write the same: case, width, composed letters, what cannot be seen."""
    return unicodedata.normalize("NFKC", text.translate(HIDDEN)).casefold().strip()
