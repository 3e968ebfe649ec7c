"""What the prefix cache saves: the same LoRA training with it and without, side by side in one run.

    make bench        or    python benchmarks/prefix_cache.py [--json]

Without the cache every step runs all layers in float32, as a fine-tuning script would; with it the states
below the split are read from disk and only the adapted layers run, in bfloat16 where the CPU has it. Both
take the same steps on the same texts from the same start, so the loss curves must agree within what
bfloat16 rounds. Times are compared as a ratio, rounds taken in turn, medians shown.
"""

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import BertConfig, BertModel, BertTokenizerFast

import shared.model
from shared.console import quiet_libraries
from shared.lora import lora_parameters
from shared.model import Recommender
from shared.plan import ModelPlan
from shared.prefix import attention_mask, find_base, tokenize
from simulations.world import write_world

TEXTS = 512
STEPS = 6  # of training; the first, a warm-up, is not timed
LEARNING_RATE = 3e-3


def texts_of_the_world(folder: Path) -> list[str]:
    """Item texts of the generated world, as long as real titles are."""
    from shared.catalog import read_catalog

    found = [text for place in write_world(folder).values() for text in read_catalog(place)[0].texts]
    return found[:TEXTS]


def bert_base_shaped(folder: Path) -> Path:
    """A random checkpoint of BERT-base's shape: 12 layers, 768 wide."""
    vocabulary = Path(find_base("minilm").source) / "vocab.txt"
    BertTokenizerFast(vocab_file=str(vocabulary), do_lower_case=True).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=30_522), add_pooling_layer=False).save_pretrained(folder)
    return folder


class Training:
    """LoRA towards fixed random targets: a loss that every adapted layer has to work on."""

    def __init__(self, plan: ModelPlan, texts: list[str], cache: Path | None) -> None:
        self.model = Recommender(plan, find_base(plan.base), seed=7)
        self.texts, self.cached = texts, cache is not None
        self.tokens = tokenize(self.model.base, texts, plan.max_tokens)
        self.states = None if cache is None else self.model.space(texts, cache).states
        draw = torch.Generator().manual_seed(1)
        self.targets = torch.nn.functional.normalize(torch.randn(len(texts), self.model.dim, generator=draw), dim=1)
        trained = [value for name, value in lora_parameters(self.model.top.wrapped) if ".lora_B." in name]
        for value in self.model.parameters():
            value.requires_grad_(False)
        for value in trained:
            value.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE)
        self.losses: list[float] = []

    def step(self) -> float:
        """One pass over all texts and a step; returns its seconds."""
        began = time.perf_counter()
        self.optimizer.zero_grad()
        total = 0.0
        for rows, vectors in self.batches():
            loss = (1 - (vectors * self.targets[rows]).sum(1)).sum() / len(self.texts)
            loss.backward()
            total += float(loss.detach())
        self.optimizer.step()
        self.losses.append(total)
        return time.perf_counter() - began

    def batches(self):
        if self.states is not None:
            for rows in self.states.batches(np.arange(len(self.texts))):
                yield rows, self.model.encode_part(self.states, rows)
            return
        from shared.prefix import BATCH_TOKENS, length_batches

        lengths = np.array([len(ids) for ids in self.tokens])
        for rows in length_batches(np.arange(len(self.texts)), lengths, BATCH_TOKENS):
            yield rows, self.whole([self.tokens[row] for row in rows])

    def whole(self, tokens: list[list[int]]) -> torch.Tensor:
        """Every layer from the embeddings up, float32."""
        longest = max(map(len, tokens))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in tokens])
        mask = torch.arange(longest) < torch.tensor([len(row) for row in tokens])[:, None]
        hidden = self.model.top.bert.embeddings(input_ids=ids)
        for layer in self.model.top.bert.encoder.layer[: self.model.split]:
            hidden = layer(hidden, attention_mask(mask))
        return self.model.top(hidden, mask)


def compare(name: str, base: str, expected: float, texts: list[str], cache: Path) -> dict[str, object]:
    """Both trainings in turn, step by step."""
    plan = ModelPlan(base=base, top_layers=2)
    without, cached = Training(plan, texts, None), Training(plan, texts, cache)
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for step in range(STEPS):
        slow, fast = without.step(), cached.step()
        if step:
            seconds["without"].append(slow)
            seconds["with"].append(fast)
    ratios = [slow / fast for slow, fast in zip(seconds["without"], seconds["with"], strict=True)]
    return {
        "base": name,
        "texts": len(texts),
        "seconds_without": round(statistics.median(seconds["without"]), 3),
        "seconds_with": round(statistics.median(seconds["with"]), 3),
        "ratio": round(statistics.median(ratios), 2),
        "ratio_range": [round(min(ratios), 2), round(max(ratios), 2)],
        "expected": expected,
        "losses_without": [round(loss, 4) for loss in without.losses],
        "losses_with": [round(loss, 4) for loss in cached.losses],
        "largest_loss_difference": max(abs(a - b) for a, b in zip(without.losses, cached.losses, strict=True)),
    }


def main(as_json: Annotated[bool, typer.Option("--json", help="JSON instead of the table.")] = False) -> None:
    """Print LoRA training with and without the prefix cache, side by side."""
    quiet_libraries()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        texts = texts_of_the_world(place / "world")
        rows = [compare("MiniLM-L6, top 2 of 6", "minilm", 3.0, texts, place / "cache")]
        shaped = str(bert_base_shaped(place / "bert"))
        rows.append(compare("BERT-base shape, top 2 of 12", shaped, 6.0, texts, place / "cache"))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    half = "bfloat16" if shared.model.BF16 else "float32"
    table = Table(title=f"One training pass over {TEXTS} texts, {torch.get_num_threads()} threads, cached in {half}")
    for column in ("base", "without cache", "with cache", "ratio (range)", "expected", "loss curves differ by"):
        table.add_column(column)
    for row in rows:
        low, high = row["ratio_range"]  # type: ignore[misc]
        table.add_row(
            str(row["base"]),
            f"{row['seconds_without']} s",
            f"{row['seconds_with']} s",
            f"{row['ratio']} ({low} to {high})",
            f">= {row['expected']:g}",
            f"{row['largest_loss_difference']:.4f} of {row['losses_without'][0]:.4f}",  # type: ignore[index]
        )
    Console().print(table)
    for row in rows:
        Console().print(
            f"{row['base']}: losses without {row['losses_without']}, with {row['losses_with']}", markup=False
        )


if __name__ == "__main__":
    typer.run(main)
