"""A tiny random BERT on disk, so that everything that needs a base runs offline in seconds."""

import string
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

WORDS = """a an and the of for with in on to by from new best set kit pack red blue green black white small large
guitar piano drum song album music rock jazz band film movie story drama comedy war love night day world news
game puzzle board card football tennis team city travel food tea coffee kitchen garden tool light book science
space star history art craft paper pen ink paint phone laptop camera lens cable case bag shoe shirt coat watch"""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MARKS = list(".,:;!?-_'\"()/&+#%")


def vocabulary() -> list[str]:
    """Special tokens, marks, digits, letters (each also as a continuation) and a few words."""
    alphabet = [*string.digits, *string.ascii_lowercase]
    pieces = [*SPECIAL, *MARKS, *alphabet, *(f"##{letter}" for letter in alphabet), *WORDS.split()]
    return list(dict.fromkeys(pieces))


def make_checkpoint(folder: Path, layers: int = 4, width: int = 32, heads: int = 2, seed: int = 0) -> Path:
    """Write config, weights and tokenizer of a random BertModel into ``folder``; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = vocabulary()
    vocab_file = folder / "vocab.txt"
    vocab_file.write_text("\n".join(vocab) + "\n", encoding="utf-8")
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=128,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab={token: row for row, token in enumerate(vocab)}, do_lower_case=True).save_pretrained(folder)
    return folder
