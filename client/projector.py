"""A domain's vectors for TensorBoard's embedding projector; those of users only where their owner asks for them."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from client.recommend import Serving
from shared.errors import DataError

CONFIG = """embeddings {{
  tensor_name: "{name}"
  tensor_path: "{name}/vectors.tsv"
  metadata_path: "{name}/metadata.tsv"
}}
"""


def export_projector(serving: Serving, folder: Path, users: bool = False) -> list[str]:
    """Write ``items/`` and, if asked for, ``users/`` with a line for each vector; what was written, by name.

    Raises DataError where the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(f"{folder} holds something already; give a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    engine = serving.engine
    columns = engine.attributes.columns
    rows = [_cells(serving, row, columns) for row in range(len(engine))]
    _write(folder / "items", engine.scorer.vectors.v, ["item_id", "title", *columns], rows)
    if users:
        ids = serving.domain.interactions.user_ids
        met = serving.people.met
        counts = [[user, str(len(found.rows) if (found := met(user)) is not None else 0)] for user in ids]
        _write(folder / "users", user_vectors(serving, ids), ["user_id", "events"], counts)
    names = ["items", "users"] if users else ["items"]
    (folder / "projector_config.pbtxt").write_text("".join(CONFIG.format(name=name) for name in names))
    return names


def user_vectors(serving: Serving, user_ids: Sequence[str]) -> torch.Tensor:
    """As the model compares them with items, residuals with them: (users, dim)."""
    people = map(serving.known, user_ids)
    return torch.stack([serving.engine.scorer.query(person.past, person.user).user for person in people])


def _cells(serving: Serving, row: int, columns: Sequence[str]) -> list[str]:
    """Id, title, and of each column the values that other items have too."""
    engine = serving.engine
    having = engine.attributes.of_item[row]
    values = [", ".join(value for name, value in having if name == column) for column in columns]
    return [engine.catalog.ids[row], engine.title(row), *values]


def _write(folder: Path, vectors: torch.Tensor, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Readable by nobody else: vectors of users are in it, or items with what a domain learnt of them."""
    folder.mkdir(mode=0o700)
    for name, lines in (
        ("vectors.tsv", ("\t".join(f"{value:.5g}" for value in vector) for vector in vectors.tolist())),
        ("metadata.tsv", ("\t".join(" ".join(cell.split()) for cell in cells) for cells in [head, *rows])),
    ):
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)
