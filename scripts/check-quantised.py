#!/usr/bin/env python3
"""Compares packed checkpoints with MLX's own: what mlxt reads, and what `mlxt convert` writes.

    check-quantised.py MLXT [DEVICE]

Runs in any Python that has mlx (0.32 or newer) and numpy; no network. A small BERT of random weights is packed by
mlx.core.quantize in every mode, width and group, and `mlxt features` on it (on DEVICE, by default the CPU) has to be what numpy computes, in double
precision, with the weights that mlx.core.dequantize makes of it. Then mlxt converts the same BERT, kept in three types, and
every tensor has to be that of mlx.core.quantize, bit for bit. Ends with status 1 at the first difference, saying where.
"""

import json
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "bert"
HIDDEN, WIDE, LAYERS, HEADS, POSITIONS = 128, 256, 2, 4, 64
TEXTS = ["a cat sat on the mat", "hello", "Two sentences. One text, with 3 commas, and more."]
# In proportion to the largest hidden state. f32 sums of 256 terms through two layers; the check on real weights allows as much.
TOLERANCE = 1e-5
DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cpu"
# Every mode with its groups and widths.
AFFINE = [("affine", group, bits) for group in (32, 64, 128) for bits in (2, 3, 4, 5, 6, 8)]
FLOATS = [("mxfp4", 32, 4), ("nvfp4", 16, 4), ("mxfp8", 32, 8)]


def mlxt(command, *arguments):
    run = subprocess.run([sys.argv[1], command, *map(str, arguments)], capture_output=True, text=True)
    if run.returncode != 0:
        sys.exit(f"mlxt {command} {' '.join(map(str, arguments))} ended with {run.returncode}: {run.stderr}")
    return run.stdout


def weights(vocabulary):
    """A BERT's tensors by name, of a normal distribution; those of norms near 1."""
    random = np.random.default_rng(0)
    names = {f"embeddings.{name}_embeddings.weight": (rows, HIDDEN) for name, rows in
             (("word", vocabulary), ("position", POSITIONS), ("token_type", 2))}
    norms = ["embeddings.LayerNorm"]
    for layer in range(LAYERS):
        of = f"encoder.layer.{layer}"
        for name, outputs, inputs in (
            *((f"attention.self.{part}", HIDDEN, HIDDEN) for part in ("query", "key", "value")),
            ("attention.output.dense", HIDDEN, HIDDEN),
            ("intermediate.dense", WIDE, HIDDEN),
            ("output.dense", HIDDEN, WIDE),
        ):
            names[f"{of}.{name}.weight"], names[f"{of}.{name}.bias"] = (outputs, inputs), (outputs,)
        norms += [f"{of}.attention.output.LayerNorm", f"{of}.output.LayerNorm"]
    tensors = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in names.items()}
    for norm in norms:
        tensors[f"{norm}.weight"] = random.normal(1, 0.1, HIDDEN).astype(np.float32)
        tensors[f"{norm}.bias"] = random.normal(0, 0.1, HIDDEN).astype(np.float32)
    return tensors


def write(folder, tensors, quantisation=None):
    """A model's folder, with the fixture's tokenizer."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FIXTURE / name, folder)
    config = json.loads((FIXTURE / "config.json").read_text())
    config |= {"hidden_size": HIDDEN, "intermediate_size": WIDE, "num_hidden_layers": LAYERS,
               "num_attention_heads": HEADS, "max_position_embeddings": POSITIONS}
    if quantisation:
        config |= {"quantization": quantisation, "quantization_config": quantisation}
    (folder / "config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(folder / "model.safetensors"), tensors, metadata={"format": "mlx"})


def pack(tensors, mode, group, bits, tables=True):
    """What MLX's converters make of them, and the weights that this stands for, in float32."""
    packed, stood_for = {}, {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2 or (not tables and "embeddings." in name):
            packed[name], stood_for[name] = tensor, np.array(tensor.astype(mx.float32))
            continue
        codes, *scales = mx.quantize(tensor, group_size=group, bits=bits, mode=mode)
        module = name.removesuffix(".weight")
        packed |= {name: codes, f"{module}.scales": scales[0]} | {f"{module}.biases": s for s in scales[1:]}
        # Scales of floats are bytes; those of affine codes are used as float32, in which halves are exact.
        scales = [s if s.dtype == mx.uint8 else s.astype(mx.float32) for s in scales]
        full = mx.dequantize(codes, *scales, group_size=group, bits=bits, mode=mode, dtype=mx.float32)
        stood_for[name] = np.array(full)
    return packed, stood_for


def forward(w, ids):
    """BERT's last hidden state, in double precision."""
    w = {name: tensor.astype(np.float64) for name, tensor in w.items()}
    erf = np.vectorize(math.erf)

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-12) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def heads(x):
        return x.reshape(len(ids), HEADS, -1).transpose(1, 0, 2)

    tables = [w[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type")]
    x = norm(tables[0][ids] + tables[1][: len(ids)] + tables[2][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        of = f"encoder.layer.{layer}"
        q, k, v = (heads(linear(x, f"{of}.attention.self.{part}")) for part in ("query", "key", "value"))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(HIDDEN / HEADS)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        seen = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), HIDDEN)
        x = norm(linear(seen, f"{of}.attention.output.dense") + x, f"{of}.attention.output.LayerNorm")
        wide = linear(x, f"{of}.intermediate.dense")
        wide = wide * (1 + erf(wide / math.sqrt(2))) / 2
        x = norm(linear(wide, f"{of}.output.dense") + x, f"{of}.output.LayerNorm")
    return x


def check_reading(folder, tensors):
    write(folder, tensors)
    lines = mlxt("tokenize", "-m", folder, "--format", "jsonl", *TEXTS).splitlines()
    ids = [json.loads(line)["ids"] for line in lines]
    worst = 0.0
    cases = [(case, dtype) for case in AFFINE for dtype in (mx.float32, mx.float16, mx.bfloat16)]
    for (mode, group, bits), dtype in cases + [(case, mx.float32) for case in FLOATS]:
        kept = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
        packed, stood_for = pack(kept, mode, group, bits)
        write(folder, packed, {"group_size": group, "bits": bits, "mode": mode})
        options = ["--device", DEVICE, "--format", "jsonl"]
        found = [json.loads(line) for line in mlxt("features", "-m", folder, *options, *TEXTS).splitlines()]
        for text, sequence, line in zip(TEXTS, ids, found, strict=True):
            expected = forward(stood_for, sequence)
            error = np.abs(np.array(line["data"]).reshape(expected.shape) - expected).max() / np.abs(expected).max()
            worst = max(worst, error)
            if not error <= TOLERANCE:
                sys.exit(f"{mode}, {bits} bits, groups of {group}, {dtype}: {text!r} is off by {error:.1e}")
    print(f"read on {DEVICE}: {len(cases) + len(FLOATS)} packed checkpoints, largest difference {worst:.1e} (allowed {TOLERANCE:.0e})")


def check_writing(folder, tensors):
    count = 0
    for dtype in (mx.float32, mx.float16, mx.bfloat16):
        kept = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
        write(folder, kept)
        for bits in (4, 8):
            for group in (32, 64, 128):
                for tables in (False, True):
                    target = folder.with_name("converted")
                    shutil.rmtree(target, ignore_errors=True)
                    options = ["--embeddings"] if tables else []
                    mlxt("convert", "-m", folder, "--bits", bits, "--group", group, "-o", target, *options)
                    expected, _ = pack(kept, "affine", group, bits, tables)
                    found = mx.load(str(target / "model.safetensors"))
                    if found.keys() != expected.keys():
                        sys.exit(f"{sorted(found.keys() ^ expected.keys())} are in one checkpoint only")
                    for name, tensor in expected.items():
                        same = found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
                        if not same or not bool(mx.array_equal(found[name], tensor)):
                            sys.exit(f"{name} is not MLX's ({bits} bits, groups of {group}, {dtype})")
                        count += 1
                    config = json.loads((target / "config.json").read_text())
                    wanted = {"group_size": group, "bits": bits, "mode": "affine"}
                    if config["quantization"] != wanted or config["quantization_config"] != wanted:
                        sys.exit(f"config.json says {config['quantization']}")
    print(f"written: {count} tensors in 36 checkpoints, all of them MLX's bit for bit")


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    mx.set_default_device(mx.cpu)
    vocabulary = json.loads((FIXTURE / "config.json").read_text())["vocab_size"]
    tensors = {name: mx.array(tensor) for name, tensor in weights(vocabulary).items()}
    with tempfile.TemporaryDirectory() as folder:
        check_reading(Path(folder) / "model", tensors)
        check_writing(Path(folder) / "model", tensors)


if __name__ == "__main__":
    main()
