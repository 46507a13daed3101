#!/usr/bin/env python3
"""Times the study's operations in PyTorch (eager) on a GPU beside our CUDA backend, and prints the ratios.

Run by hand on a machine with an NVIDIA GPU and a Python that has torch, after `cargo build --release -p mlxt-cuda --example cuda_operations`:
`python scripts/time-operations-cuda.py PATH/cuda_operations [published|encoder ..] [words a case has to contain ..]`. Ours are timed before PyTorch's
and after, case by case in one process each; the better of both counts. Values are not compared: `cuda_operations conformance` and the study do that.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "study/workers"))
from torch_operations import OPERATIONS  # noqa: E402


def title(case):
    axis = f" along axis {case['axis']}" if "axis" in case else ""
    heads = f" of {case['settings']['heads']} heads" if "settings" in case else ""
    return f"{case['operation']}{axis}{heads} {case['dims']}"


def inputs(case):
    name, dims = case["operation"], case["dims"]
    tensors = [torch.randn(d, device="cuda") for d in dims]
    index = lambda d: torch.randint(0, dims[0][0], d, device="cuda")
    if name in ("Gather", "Embedding"):
        tensors[1] = index(dims[1])
    if name.startswith("Scatter"):
        tensors[1:] = [index(dims[1]), index(dims[1])]
    if name in ("RaggedAttention", "MeanPoolNormalize"):
        tensors[1] = torch.full(dims[1], dims[0][0] // dims[1][0], device="cuda")
    if name == "SelfAttention":
        tensors[3] = torch.full(dims[3], dims[0][2], device="cuda")
    if name == "BCE":
        tensors = [torch.rand(dims[0], device="cuda"), torch.randint(0, 2, dims[1], device="cuda").float()]
    return tensors


def theirs(case):
    """Milliseconds of each run, after three."""
    arguments = {key: case[key] for key in ("axis", "settings") if key in case}
    times = []
    with torch.inference_mode():
        run = OPERATIONS[case["operation"]](*inputs(case), **arguments)
        begun = time.monotonic()
        while len(times) < 8 or (time.monotonic() - begun < 0.06 and len(times) < 1000):
            start = time.perf_counter()
            result = run()
            torch.cuda.synchronize()
            times.append((time.perf_counter() - start) * 1e3)
            del result
    return times[3:]


def ours(program, chosen, words):
    found = {}
    for name in chosen:
        said = subprocess.run([program, name, *words], capture_output=True, text=True).stdout
        for line in said.splitlines():
            fields = line.split("\t")
            if len(fields) == 3:
                found[fields[2]] = float(fields[0]), float(fields[1])
            else:
                print(line)
    return found


def main():
    program, words = sys.argv[1], sys.argv[2:]
    sets = [w for w in words if w in ("published", "encoder")] or ["published"]
    words = [w for w in words if w not in sets]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    before = ours(program, sets, words)
    rows = []
    for case in json.loads((ROOT / "study/operations.json").read_text())["cases"]:
        if case["set"] not in sets or not all(w in title(case) for w in words):
            continue
        try:
            times = theirs(case)
            rows.append((title(case), min(times), statistics.median(times)))
        except Exception as error:
            rows.append((title(case) + f" ({type(error).__name__})", None, None))
        torch.cuda.empty_cache()
    after = ours(program, sets, words)
    slower = 0
    print("| case | ours, best and median ms | PyTorch | ratio of the best | of the medians |\n|---|---|---|---|---|")
    for name, best, median in rows:
        mine = [run[name] for run in (before, after) if name in run]
        if best is None or not mine:
            print(f"| {name} | {min(mine)[0] if mine else 'none'} | {best} | | |")
            continue
        my_best, my_median = min(m[0] for m in mine), min(m[1] for m in mine)
        slower += my_median > median
        print(f"| {name} | {my_best:.4f}, {my_median:.4f} | {best:.4f}, {median:.4f} | {best / my_best:.2f} | {median / my_median:.2f} |")
    print(f"{slower} of {len(rows)} slower by the median")


if __name__ == "__main__":
    main()
