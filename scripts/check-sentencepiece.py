#!/usr/bin/env python3
"""Compares mlxt's token ids with Hugging Face transformers where a folder has a SentencePiece model and no tokenizer.json.

    check-sentencepiece.py MLXT

Trains small unigram models on the sentences in fixtures/text (22 languages, 16 scripts), with SentencePiece's own
normaliser, lays them out as XLM-RoBERTa, CamemBERT and DeBERTa-v2 do, and tokenises those sentences, texts made to be hard
and random ones. Then the same from the tokenizer.json that transformers writes. Ends with status 1 at the first difference,
saying where.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import sentencepiece
from transformers import CamembertTokenizer, DebertaV2Tokenizer, XLMRobertaTokenizer

SENTENCES = Path(__file__).parent.parent / "fixtures" / "text" / "sentences.txt"

HARD = [
    "", " ", "  two  spaces  ", "\ttab\tand\nnew line\r\n", "a\u00a0b\u2003c\u3000d", "ﬁ ligature ½ ① ㎏ ㍿", "ＦＵＬＬ　ｗｉｄｔｈ ｶﾀｶﾅ",
    "e\u0301 e\u0300\u0323 n\u0303o", "zero\u200bwidth\u200djoiner\ufeff", "soft\u00adhyphen \u0007bell \u007f \u0000nul",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈 emoji", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈", "한국어 각 각", "ไทย ภาษา", "नमस्ते क्षत्रिय", "İSTANBUL ıI ẞ ß",
    "It's 3.14, isn't it?! (yes) [no] {maybe}", "▁already ▁marked▁", "<mask>", "a <mask> b", "a  <mask>  b", "a<mask>b",
    "[MASK] of [CLS] and [SEP]", "<s>start</s> <pad> <unk> <unk>NOTUSED <s>NOTUSED", "user <sym> defined<sym>symbol", "x" * 300,
]

# Ranges that random texts are made of.
RANGES = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x400, 0x500), (0x900, 0x980), (0x2000, 0x2070), (0x3040, 0x3100)]
RANGES += [(0x4E00, 0x4F00), (0xAC00, 0xAD00), (0xFB00, 0xFB50), (0xFF00, 0xFFF0), (0x1F600, 0x1F650)]

FAIRSEQ = {"user_defined_symbols": ["<sym>"]}
DEBERTA = {
    "pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3,
    "pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]",
}  # fmt: skip

# Class, file, how the model is trained, tokenizer_config.json.
CASES = [
    (XLMRobertaTokenizer, "sentencepiece.bpe.model", {}, {}),
    (XLMRobertaTokenizer, "sentencepiece.bpe.model", FAIRSEQ, {"add_prefix_space": False}),
    (XLMRobertaTokenizer, "sentencepiece.bpe.model", {"normalization_rule_name": "identity"}, {}),
    (XLMRobertaTokenizer, "sentencepiece.bpe.model", {"normalization_rule_name": "nfkc_cf"}, {}),
    (CamembertTokenizer, "sentencepiece.bpe.model", {}, {}),
    (CamembertTokenizer, "sentencepiece.bpe.model", FAIRSEQ, {"mask_token": "<mask>"}),
    (DebertaV2Tokenizer, "spm.model", DEBERTA, {}),
    (DebertaV2Tokenizer, "spm.model", DEBERTA, {"do_lower_case": True, "split_by_punct": True}),
    (DebertaV2Tokenizer, "spm.model", DEBERTA | FAIRSEQ, {"add_prefix_space": False}),
]


def texts():
    generator = random.Random(6)
    letters = lambda: chr(generator.randrange(*generator.choice(RANGES)))
    made = ["".join(letters() for _ in range(generator.randrange(1, 40))) for _ in range(500)]
    return SENTENCES.read_text(encoding="utf-8").splitlines() + HARD + made


def train(path, options):
    sentencepiece.SentencePieceTrainer.train(
        input=str(SENTENCES), model_prefix=str(path.with_suffix("")), vocab_size=2000, hard_vocab_limit=False,
        model_type="unigram", character_coverage=0.999, minloglevel=2, num_threads=1, **options,
    )  # fmt: skip
    path.with_suffix(".vocab").unlink()


def compare(binary, folder, tokenizer, all_texts, what):
    rows = "".join(json.dumps({"text": text}) + "\n" for text in all_texts)
    run = subprocess.run(
        [binary, "tokenize", "-m", str(folder), "-i", "-", "--input-format", "jsonl", "--column", "text"],
        input=rows, capture_output=True, text=True,
    )  # fmt: skip
    if run.returncode != 0:
        sys.exit(f"FAILED: {what}: mlxt ended with {run.returncode}: {run.stderr}")
    ours = [json.loads(line)["ids"] for line in run.stdout.splitlines()]
    theirs = [tokenizer(text)["input_ids"] for text in all_texts]
    for text, mine, expected in zip(all_texts, ours, theirs, strict=True):
        if mine != expected:
            names = tokenizer.convert_ids_to_tokens
            sys.exit(f"FAILED: {what}: {text!r} is {names(mine)} {mine} instead of {names(expected)} {expected}")
    print(f"{what}: {len(ours)} texts, {sum(map(len, ours))} tokens, the same")


def main(binary):
    all_texts = texts()
    for cls, file, options, settings in CASES:
        what = " ".join([cls.__name__, *(f"{k}={v}" for k, v in (options | settings).items() if k not in DEBERTA)])
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as saved:
            train(Path(folder, file), options)
            Path(folder, "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": cls.__name__} | settings))
            tokenizer = cls.from_pretrained(folder)
            compare(binary, folder, tokenizer, all_texts, what)
            tokenizer.save_pretrained(saved)
            compare(binary, saved, cls.from_pretrained(saved), all_texts, f"{what}, tokenizer.json")
    print(f"{2 * len(CASES)} passed, 0 failed")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
