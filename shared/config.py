"""Reads settings: a TOML file, then ``--set section.key=value``, into frozen dataclasses."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from shared.errors import ConfigError

T = TypeVar("T")
Table = dict[str, dict[str, Any]]


def read_section(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Build one frozen config; an unknown key or a wrong type is an error, not a shrug."""
    if not is_dataclass(cls):
        raise TypeError(f"{cls} is not a dataclass")
    hints = get_type_hints(cls)
    known = {field.name for field in fields(cls)}
    if extra := sorted(table.keys() - known):
        raise ConfigError(f"[{where}] has no setting {extra[0]!r}; it knows {', '.join(sorted(known))}")
    return cls(**{key: _fit(hints[key], value, f"{where}.{key}") for key, value in table.items()})


def _fit(hint: Any, value: Any, where: str) -> Any:
    """Let an int stand for a float and a list for a tuple; refuse every other mismatch."""
    origin = getattr(hint, "__origin__", None)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: expected a list such as ['a', 'b'], found {value!r}")
        return tuple(_fit(hint.__args__[0], part, where) for part in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: expected a table such as {{name = ...}}, found {value!r}")
        return {key: _fit(hint.__args__[1], part, f"{where}.{key}") for key, part in value.items()}
    options = getattr(hint, "__args__", None) if origin is None else None
    kinds = tuple(options) if options else (hint,)
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise ConfigError(f"{where}: expected a number, found one of {len(str(value))} digits") from None
    if isinstance(value, bool) and bool not in kinds:
        raise ConfigError(f"{where}: expected {_spell(kinds)}, found {value!r}")
    if not isinstance(value, kinds):
        raise ConfigError(f"{where}: expected {_spell(kinds)}, found {value!r}")
    return value


def _spell(kinds: tuple[Any, ...]) -> str:
    return " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)


def read_toml(path: Path) -> Table:
    """Parse a settings file. Raises ConfigError with the line when it is not TOML."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read settings {path}: {error.strerror}; check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}") from None
    if loose := sorted(key for key, value in table.items() if not isinstance(value, dict)):
        raise ConfigError(f"{path}: {loose[0]!r} stands outside a section; write it under [section]")
    return table


def apply_sets(table: Table, sets: Iterable[str]) -> Table:
    """Lay ``section.key=value`` over a table; the value is read as TOML, a bare word as text."""
    merged = {section: dict(values) for section, values in table.items()}
    for text in sets:
        path, equals, raw = text.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(f"--set expects section.key=value, found {text!r}")
        try:
            value = tomllib.loads(f"x = {raw}")["x"]
        except tomllib.TOMLDecodeError:
            value = raw.strip()
        merged.setdefault(section, {})[key] = value
    return merged
