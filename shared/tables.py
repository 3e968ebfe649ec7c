"""Reads one table file (RecBole atomic, CSV, Parquet) as columns of text, and keeps count of what is wrong with it.

The only room that knows polars: everybody else gets numpy arrays and Python lists.
"""

import codecs
import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from shared.errors import DataError

DAMAGED = "\ufffd"  # what a byte that is not UTF-8 becomes
FIRST_LINES = 5
NUMERIC = r"^[\s\d\[\].,;+\-eE]*\d[\s\d\[\].,;+\-eE]*$"  # a number, or a vector of numbers
ATOMIC_TYPES = {"token": "text", "token_seq": "text", "float": "number", "float_seq": "number"}

Lines = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Problem:
    """One kind of thing wrong with a file, the rule that was applied, and where it shows first."""

    kind: str
    rule: str
    count: int
    lines: tuple[int, ...]  # the first few; the header is line 1


@dataclass(frozen=True)
class Report:
    """What was read from one file. Holds counts and line numbers, never an id or a text of a user."""

    file: str
    rows_read: int
    rows_kept: int
    problems: tuple[Problem, ...]

    def lines(self) -> list[str]:
        """Sentences for people: one for the file, one for each kind of problem."""
        head = f"{self.file}: {self.rows_kept:,} of {self.rows_read:,} rows kept"
        return [head, *(f"  {p.count:,} x {p.kind}: {p.rule}{_spell_lines(p)}" for p in self.problems)]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values that json.dumps takes."""
        problems = [{"kind": p.kind, "rule": p.rule, "count": p.count, "lines": list(p.lines)} for p in self.problems]
        return {"file": self.file, "rows_read": self.rows_read, "rows_kept": self.rows_kept, "problems": problems}


def _spell_lines(problem: Problem) -> str:
    if not problem.lines:
        return ""
    more = ", ..." if problem.count > len(problem.lines) else ""
    return f" (line {', '.join(map(str, problem.lines))}{more})"


def problem(kind: str, rule: str, lines: Lines) -> tuple[Problem, ...]:
    """A tuple with one problem, or an empty one when no line shows it."""
    if not lines.size:
        return ()
    return (Problem(kind, rule, int(lines.size), tuple(int(line) for line in lines[:FIRST_LINES])),)


@dataclass(frozen=True)
class Table:
    """Columns of text with the line each row came from; an empty cell is a missing one."""

    path: Path
    types: Mapping[str, str]  # column -> "text" or "number" (a vector of numbers counts as "number")
    lines: Lines  # (rows,)
    rows_read: int
    problems: tuple[Problem, ...]
    _frame: pl.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return self._frame.height

    def texts(self, column: str) -> list[str]:
        """One text for each row, "" where the cell is empty."""
        return self._frame[column].fill_null("").to_list()

    def numbers(self, column: str) -> tuple[NDArray[np.float64], Mask]:
        """Values (rows,), NaN where there is none, and which cells are not empty yet hold no number."""
        cells = self._frame[column]
        values = cells.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        return values, np.isnan(values) & cells.is_not_null().to_numpy()

    def codes(self, column: str, names: Iterable[str] | None = None) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """Row -> position in ``names`` (by default the column's own values in order of appearance); -1 for none."""
        cells = self._frame[column]
        known = tuple(cells.drop_nulls().unique(maintain_order=True).to_list() if names is None else names)
        if not known:
            return np.full(len(self), -1, dtype=np.int32), known
        codes = cells.cast(pl.Enum(known), strict=False).to_physical().cast(pl.Int32)
        return codes.fill_null(-1).to_numpy(), known

    def missing(self, column: str) -> Mask:
        """Which rows have an empty cell, (rows,)."""
        return self._frame[column].is_null().to_numpy()

    def damaged(self, column: str) -> Mask:
        """Which rows hold bytes that were not UTF-8, (rows,)."""
        return self._frame[column].str.contains(DAMAGED, literal=True).fill_null(False).to_numpy()


def first_of_each(*columns: NDArray[Any]) -> Mask:
    """Which rows are the first with their combination of values, (rows,); NaN equals NaN."""
    frame = pl.DataFrame({str(place): column for place, column in enumerate(columns)})
    return frame.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()


def find_table(folder: Path, ending: str, stem: str, name: str | None = None) -> Path:
    """The file of a domain: ``NAME.ending``, or ``stem.csv``, or ``stem.parquet``. DataError when none or unclear."""
    if not folder.is_dir():
        raise DataError(f"expected a folder with a domain's files at {folder}; check the path")
    atomic = sorted(folder.glob(f"*.{ending}"))
    chosen = [path for wanted in (name, folder.name) for path in atomic if path.stem == wanted]
    plain = [path for path in (folder / f"{stem}.csv", folder / f"{stem}.parquet") if path.is_file()]
    if chosen or len(atomic) == 1:
        return (chosen or atomic)[0]
    if atomic:
        raise DataError(f"{folder} holds {len(atomic)} files *.{ending}; call one {folder.name}.{ending}, or keep one")
    if not plain:
        raise DataError(f"{folder} holds neither NAME.{ending} nor {stem}.csv nor {stem}.parquet; add one of them")
    return plain[0]


def read_table(path: Path, required: Sequence[str]) -> Table:
    """All columns of a file as text. DataError when the file cannot be used at all; bad rows are only counted."""
    raw = (_read_parquet if path.suffix == ".parquet" else _read_text)(path, required)
    cells = pl.all().str.strip_chars().replace("", None)
    frame = raw._frame.select(cells)
    bad = frame.select(pl.any_horizontal(pl.all().str.contains(DAMAGED, literal=True).fill_null(False))).to_series()
    damaged = problem("text that is not UTF-8", "kept with \ufffd for the bad bytes", raw.lines[bad.to_numpy()])
    types = raw.types or {column: _guess_type(frame[column]) for column in frame.columns}
    return replace(raw, types=types, problems=raw.problems + damaged, _frame=frame)


def _guess_type(cells: pl.Series) -> str:
    """ "number" when every cell that is not empty holds numbers only."""
    filled = cells.drop_nulls()
    return "number" if len(filled) and bool(filled.str.contains(NUMERIC).all()) else "text"


def drop_rows(path: Path, columns: Sequence[str], value: str) -> int:
    """Write a file anew without the rows that have ``value`` in one of the columns; how many those were.

    All other bytes of a text file stay as they are. Written aside and renamed. Raises DataError as ``read_table``.
    """
    aside = path.with_name(f".{path.name}.new")
    if path.suffix == ".parquet":
        table = read_table(path, ())
        here = [column for column in columns if column in table.types]
        if not here:
            return 0
        gone = pl.any_horizontal(pl.col(column).cast(pl.String).str.strip_chars() == value for column in here)
        frame = pl.read_parquet(path)
        kept = frame.filter(~gone.fill_null(False))
        kept.write_parquet(aside)
        dropped = frame.height - kept.height
    else:
        whole = path.read_bytes()
        mark = codecs.BOM_UTF8 if whole.startswith(codecs.BOM_UTF8) else b""
        raw = whole[len(mark) :].decode(errors="surrogateescape")
        atomic = path.suffix != ".csv"
        quoted = not atomic and '"' in raw
        rows = _rows_of(raw, "\t" if atomic else ",", quoted)
        header = [name.partition(":")[0].strip() if atomic else name.strip() for name in next(rows)[1]]
        places = [place for place, name in enumerate(header) if name in columns]
        kept_rows, dropped = [raw[: raw.find("\n") + 1]], 0
        for line, cells in rows:
            mine = any(place < len(cells) and cells[place].strip() == value for place in places)
            dropped += mine
            kept_rows += [] if mine else [line]
        aside.write_bytes(mark + "".join(kept_rows).encode(errors="surrogateescape"))
    if not dropped:
        aside.unlink()
        return 0
    aside.chmod(path.stat().st_mode & 0o777)
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)
    return dropped


def _rows_of(text: str, separator: str, quoted: bool) -> Iterator[tuple[str, list[str]]]:
    """Each row as it stands in the file, its line end with it, and its cells; a quoted one may take several lines."""
    lines = io.StringIO(text, newline="")
    if not quoted:
        for line in lines:
            yield line, line.rstrip("\r\n").split(separator)
        return
    taken: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    for cells in csv.reader(noted(), strict=True):
        yield "".join(taken), cells
        taken.clear()


def _check_columns(path: Path, columns: list[str], required: Sequence[str]) -> None:
    """Refuse a header that lacks a column or repeats one; it is never quoted, for it may be a row of data."""
    if lacking := [name for name in required if name not in columns]:
        raise DataError(
            f"{path}: expected the columns {', '.join(required)}; found {len(columns)} columns without "
            f"{', '.join(lacking)}; write the names into the first line"
        )
    if len(set(columns)) < len(columns):
        raise DataError(f"{path}: expected each column once, found {len(columns) - len(set(columns))} repeated; rename")


def _read_parquet(path: Path, required: Sequence[str]) -> Table:
    """Every plain column cast to text, dates to unix seconds; nested, binary and duration columns stay out."""
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError):
        raise DataError(f"{path}: expected a Parquet file, found something else; write it again or use CSV") from None
    kept: list[pl.Series] = []
    types: dict[str, str] = {}
    for column in frame.get_columns():
        if isinstance(column.dtype, pl.Datetime | pl.Date):
            column = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
        if not (column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object, pl.Duration)):
            types[column.name] = "number" if column.dtype.is_numeric() else "text"
            kept.append(column.cast(pl.String))
    _check_columns(path, list(types), required)
    lines = np.arange(2, frame.height + 2)
    return Table(path, types, lines, frame.height, (), pl.DataFrame(kept))


def _read_text(path: Path, required: Sequence[str]) -> Table:
    """The rows with the right number of fields; the types stay empty when the file states none."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from None
    if not text.strip():
        raise DataError(f"{path}: expected a header and rows, found an empty file; export it again")
    atomic = path.suffix != ".csv"
    quoted = not atomic and '"' in text
    header, frame, lines, bad = _split_quoted(path, text) if quoted else _split_plain(text, "\t" if atomic else ",")
    if atomic and len(header) < 2:
        raise DataError(f"{path}: expected a header name:type<TAB>name:type, found no tab in line 1; separate by tabs")
    pairs = [name.partition(":") if atomic else (name, "", "") for name in header]
    names = [name.strip() for name, _, _ in pairs]
    _check_columns(path, names, required)
    frame.columns = names
    types = {name: ATOMIC_TYPES.get(kind.strip(), "text") for name, (_, _, kind) in zip(names, pairs, strict=True)}
    problems = problem("row with a wrong number of fields", "dropped", bad)
    return Table(path, types if atomic else {}, lines, frame.height + bad.size, problems, frame)


def _split_plain(text: str, separator: str) -> tuple[list[str], pl.DataFrame, Lines, Lines]:
    """Header, cells, line of each row, lines of the rows with a wrong number of fields; no quoting, no Python loop."""
    first, *rest = text.rstrip("\r\n").split("\n")
    header = first.rstrip("\r").split(separator)
    rows = pl.Series("row", rest, dtype=pl.String).str.strip_chars_end("\r")
    fits = rows.str.count_matches(separator, literal=True) == len(header) - 1
    frame = rows.filter(fits).str.split_exact(separator, len(header) - 1).struct.unnest()
    lines = np.arange(2, len(rest) + 2)
    return header, frame, lines[fits.to_numpy()], lines[~fits.to_numpy()]


def _split_quoted(path: Path, text: str) -> tuple[list[str], pl.DataFrame, Lines, Lines]:
    """The same for CSV with quotes, where one row may take several lines; its line is the last of them."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    bad: list[int] = []
    try:
        header = next(reader)
        for row in reader:
            if len(row) == len(header):
                rows.append(row)
                lines.append(reader.line_num)
            else:
                bad.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path}: broken quotes up to line {reader.line_num} ({error}); mend them") from None
    columns = list(zip(*rows, strict=True)) or [() for _ in header]
    frame = pl.DataFrame([pl.Series(str(place), cells, dtype=pl.String) for place, cells in enumerate(columns)])
    return header, frame, np.array(lines, dtype=np.int64), np.array(bad, dtype=np.int64)
