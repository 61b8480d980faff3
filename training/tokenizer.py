"""A byte-level BPE tokenizer in CLIP's layout, learned from the caption words."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from training.captions import word_list

MAX_LENGTH = 40
START, END = "<|startoftext|>", "<|endoftext|>"
# Left in two pieces, so that the model also has concepts of several tokens.
SPLIT_WORDS = ("cigarette", "mushroom", "umbrella", "handgun", "toadstool", "mondrian", "hokusai")


def train_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learn the merges and save the tokenizer under `folder`."""
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=2000, end_of_word_suffix="</w>", show_progress=False, min_frequency=1
    )
    bpe.train_from_iterator([" ".join(word_list())], trainer)
    learned = json.loads(bpe.to_str())["model"]["merges"]
    merges = [pair for pair in learned if "".join(pair).removesuffix("</w>") not in SPLIT_WORDS]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    tokens += [
        joined for joined in dict.fromkeys(a + b for a, b in merges) if joined not in set(tokens)
    ]
    tokens += [START, END]
    vocab = {token: number for number, token in enumerate(tokens)}
    tokenizer = CLIPTokenizer(
        vocab=vocab,
        merges=[tuple(pair) for pair in merges],
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=MAX_LENGTH,
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
