#!/usr/bin/env python3
"""Times the BERT of the Python package mlx-transformers against mlxt, on the same ids, in turn.

    time-mlx-transformers.py MLXT MODEL_FOLDER [--device cpu|mlx:cpu|mlx:gpu] [--dtype f32|f16|bf16]

Runs in a Python that has mlx-transformers (0.3.0), numpy and, on Linux, one of mlx[cpu], mlx[cuda12], mlx[cuda13].
MODEL_FOLDER is a BERT that the package can load: its tensors without the prefix `bert.`, such as all-MiniLM-L6-v2. mlxt
answers as a worker of the study (study/PROTOCOL.md): from ids on the host to the result computed. The package gets the ids
as padded arrays that are there before time runs, and its hidden states are evaluated. Hidden states that differ end it with
status 1.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_transformers.models import BertModel
from transformers import AutoConfig, AutoTokenizer

SENTENCES = Path(__file__).resolve().parent.parent / "fixtures" / "text" / "sentences.txt"
# In proportion to the largest hidden state, by type: what f32 and TF32 products through 12 layers may differ by, and halves.
TOLERANCE = {"f32": 1e-3, "f16": 2e-2, "bf16": 1e-1}
TYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
ROUNDS, ITERATIONS = 20, 3


class Worker:
    """mlxt behind the study's protocol."""

    def __init__(self, binary, folder, device, dtype):
        self.process = subprocess.Popen([binary, "worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threads = os.cpu_count() or 1
        self.ask(do="load", model=str(folder), device=device, dtype=dtype, mode="default", threads=threads)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        if "error" in reply:
            sys.exit(f"mlxt: {reply['error']['stage']}: {reply['error']['message']}")
        return reply["ok"]

    def hidden(self):
        with tempfile.NamedTemporaryFile() as file:
            shape = self.ask(do="output", file=file.name)["shape"]
            return np.fromfile(file.name, dtype="<f4").reshape(shape)

    def run(self):
        return [ns / 1e6 for ns in self.ask(do="run", iterations=ITERATIONS)["host_ns"]]


class Peer:
    """The package's BERT on padded arrays."""

    def __init__(self, folder, dtype):
        self.model = BertModel(AutoConfig.from_pretrained(folder))
        self.model.from_pretrained(str(folder), dtype=TYPES[dtype], local_files_only=True)
        mx.eval(self.model.parameters())

    def batch(self, ids):
        longest = max(map(len, ids))
        self.lengths = [len(sequence) for sequence in ids]
        self.ids = mx.array([sequence + [0] * (longest - len(sequence)) for sequence in ids])
        self.mask = mx.array([[1] * n + [0] * (longest - n) for n in self.lengths])
        mx.eval(self.ids, self.mask)

    def forward(self):
        hidden = self.model(input_ids=self.ids, attention_mask=self.mask).last_hidden_state
        mx.eval(hidden)
        return hidden

    def hidden(self):
        hidden = np.array(self.forward().astype(mx.float32))
        return np.concatenate([rows[:n] for rows, n in zip(hidden, self.lengths, strict=True)])

    def run(self):
        times = []
        for _ in range(ITERATIONS):
            start = time.perf_counter()
            self.forward()
            times.append((time.perf_counter() - start) * 1e3)
        return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mlxt")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="mlx:gpu")
    parser.add_argument("--dtype", default="f32", choices=TYPES)
    arguments = parser.parse_args()
    mx.set_default_device(mx.gpu if arguments.device == "mlx:gpu" else mx.cpu)
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder, local_files_only=True)
    texts = SENTENCES.read_text(encoding="utf-8").splitlines()[:32]
    ids = [tokenizer(text, truncation=True, max_length=256)["input_ids"] for text in texts]
    worker = Worker(arguments.mlxt, arguments.folder, arguments.device, arguments.dtype)
    peer = Peer(arguments.folder, arguments.dtype)
    print(f"{arguments.device}, {arguments.dtype}; median of {ROUNDS * ITERATIONS}, in ms")
    for batch in (ids[:1], ids):
        worker.ask(do="batch", ids=batch)
        peer.batch(batch)
        ours, theirs = worker.hidden(), peer.hidden()
        error = np.abs(ours - theirs).max() / np.abs(theirs).max()
        if not error <= TOLERANCE[arguments.dtype]:
            sys.exit(f"hidden states of {len(batch)} texts differ by {error:.1e}")
        samples = {"mlxt": [], "mlx-transformers": []}
        for turn in range(ROUNDS):
            pair = [("mlxt", worker), ("mlx-transformers", peer)]
            for name, engine in pair if turn % 2 else reversed(pair):
                samples[name] += engine.run()
        medians = {name: statistics.median(times) for name, times in samples.items()}
        tokens = sum(map(len, batch))
        shares = ", ".join(f"{name} {median:.2f}" for name, median in medians.items())
        ratio = medians["mlxt"] / medians["mlx-transformers"]
        print(f"{len(batch)} texts of {tokens} tokens: {shares}; ours takes {ratio:.2f} of the time")


if __name__ == "__main__":
    main()
