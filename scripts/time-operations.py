#!/usr/bin/env python3
"""Times the study's published operations in PyTorch and in our CPU backend, case by case in turns, and prints the ratios.

Run by hand, after `cargo build --release -p mlxt-cpu --example operations`, with a Python that has torch:
`python scripts/time-operations.py [words a case has to contain ..]`. Values are not compared: the conformance table and
the study do that. Writes a Markdown table to standard output.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parent.parent
THREADS = int(os.environ.get("THREADS", "2"))
OURS = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/examples/operations"


def operation(case):
    """A function of no arguments that computes the case as a user of PyTorch would write it."""
    name, dims, axis = case["operation"], case["dims"], case.get("axis")
    x = torch.randn(dims[0])
    rest = [torch.randn(d) for d in dims[1:]]
    index = lambda i: torch.randint(0, dims[0][0], dims[i])
    match name:
        case "Argmax":
            return lambda: torch.argmax(x, axis)
        case "BCE":
            p, y = torch.rand(dims[0]), torch.randint(0, 2, dims[1]).float()
            return lambda: F.binary_cross_entropy(p, y)
        case "Concat":
            return lambda: torch.cat([x, rest[0]], axis)
        case "Conv1d":
            # Channels last in memory, as the suite's arrays are.
            a, w = x.transpose(1, 2), rest[0].transpose(1, 2)
            return lambda: F.conv1d(a, w).transpose(1, 2)
        case "Conv2d":
            a, w = x.permute(0, 3, 1, 2), rest[0].permute(0, 3, 1, 2)
            return lambda: F.conv2d(a, w).permute(0, 2, 3, 1)
        case "Gather":
            i = index(1)
            return lambda: x.index_select(0, i)
        case "Scatter":
            s, t = index(1), index(1)
            return lambda: torch.zeros_like(x).index_copy_(0, t, x.index_select(0, s))
        case "ScatterSum":
            s, t = index(1), index(1)
            return lambda: torch.zeros_like(x).index_add_(0, t, x.index_select(0, s))
        case "ScatterMax":
            s, t = index(1), index(1)
            return lambda: torch.zeros_like(x).index_reduce_(0, t, x.index_select(0, s), "amax")
        case "LayerNorm":
            return lambda: F.layer_norm(x, x.shape[-1:])
        case "LeakyReLU":
            return lambda: F.leaky_relu(x)
        case "Linear":
            w = rest[0].t().contiguous()  # as a Linear module keeps it
            return lambda: F.linear(x, w, rest[1])
        case "MatMul":
            return lambda: torch.matmul(x, rest[0])
        case "PReLU":
            return lambda: F.prelu(x, rest[0])
        case "ReLU":
            return lambda: F.relu(x)
        case "ScaledDotProductAttention":
            return lambda: F.scaled_dot_product_attention(x, *rest, is_causal=True)
        case "SeLU":
            return lambda: F.selu(x)
        case "Sigmoid":
            return lambda: torch.sigmoid(x)
        case "Softmax":
            return lambda: torch.softmax(x, axis)
        case "Softplus":
            return lambda: F.softplus(x)
        case "Sort":
            return lambda: torch.sort(x, axis).values
        case "Sum":
            return lambda: torch.sum(x, axis)
        case "SumAll":
            return lambda: torch.sum(x)


def theirs(run, budget):
    """Milliseconds of each run, after two."""
    run(), run()
    times, start = [], time.monotonic()
    while len(times) < 5 or (time.monotonic() - start < budget and len(times) < 1000):
        begun = time.perf_counter()
        run()
        times.append((time.perf_counter() - begun) * 1e3)
    return times


def title(case):
    axis = f" along axis {case['axis']}" if "axis" in case else ""
    return f"{case['operation']}{axis} {case['dims']}"


def main():
    torch.set_num_threads(THREADS)
    cases = json.loads((ROOT / "study/operations.json").read_text())["cases"]
    words = sys.argv[1:]
    print("| case | ours, best and median ms | PyTorch | ratio of the best | of the medians |\n|---|---|---|---|---|")
    for case in cases:
        name = title(case)
        if case["set"] != "published" or not all(w in name for w in words):
            continue
        with torch.inference_mode():
            run = operation(case)
            times = theirs(run, 0.2)
            said = subprocess.run([OURS, "--plain", str(THREADS), name], capture_output=True, text=True, check=True).stdout
            times += theirs(run, 0.2)
            del run
        lines = [line.split("\t") for line in said.splitlines()]
        best, median = next(map(float, line[:2]) for line in lines if line[2] == name)
        their_best, their_median = min(times), statistics.median(times)
        print(
            f"| {name} | {best:.3f}, {median:.3f} | {their_best:.3f}, {their_median:.3f} |"
            f" {their_best / best:.2f} | {their_median / median:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
