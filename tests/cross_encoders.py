"""A small cross-encoder that is made here, because no package carries the weights of one.

A BERT of two layers over a vocabulary of number words is trained for some seconds on the overlap of words between
query and text, so that its labels mean something, and saved as its authors would: what loads and runs it is the real
code of revector, SentenceTransformers and transformers. It says nothing about how good published models are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.versions import NUMBERS

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


WORDS = NUMBERS[:8]
"""What it can read."""


def overlap(query: str, text: str) -> int:
    """How many words of the query are in the text: what the model is trained to predict."""
    return len(set(query.split()) & set(text.split()))


def train(folder: Path, *, labels: int = 1, steps: int = 300) -> Path:
    """Train and save the model, with one label or several; with one it is trained to predict whether words
    overlap."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    torch.manual_seed(1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them only wait for each other at this size
    rng = np.random.default_rng(1)
    vocabulary = {word: number for number, word in enumerate([*_SPECIAL, *WORDS])}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",  # noqa: S106
        mask_token="[MASK]", model_max_length=32,  # noqa: S106
    )  # fmt: skip
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=32, num_labels=labels, hidden_dropout_prob=0,
        attention_probs_dropout_prob=0, initializer_range=0.1,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        pairs = [_pair(rng, bool(wanted)) for wanted in rng.integers(0, 2, 64)]
        truth = torch.tensor([overlap(*pair) for pair in pairs])
        encoded = tokenizer([q for q, _ in pairs], [t for _, t in pairs], padding=True, return_tensors="pt")
        logits = model(**encoded).logits
        if labels == 1:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], truth.float())
        else:
            loss = torch.nn.functional.cross_entropy(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _pair(rng: np.random.Generator, overlapping: bool) -> tuple[str, str]:
    """A query of one word, and a text of two that has it or not."""
    query, other, third = rng.permutation(WORDS)[:3]
    text = [query if overlapping else third, other]
    return query, " ".join(rng.permutation(text))
