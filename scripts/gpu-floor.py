#!/usr/bin/env python3
"""What a forward's products take by cuBLAS alone, on the GPU at hand: a floor for all engines there.

Run by hand with a Python that has torch: `python scripts/gpu-floor.py [ROWS ..]` (3904 and 1600). The 48 products of BERT base, each with weights of
its own, are one CUDA graph; nothing else runs. One JSON line for each case: milliseconds of a run, the median of the first 200 and of the last 200, and
power and clock at the end as nvidia-smi gives them. Runs with a rest in between show the card cool, those without what its power allows, and numbers
scaled to 0 what it would do if power were no limit.
"""

import json
import statistics
import subprocess
import sys
import threading
import time

import torch

LAYERS, PRODUCTS = 12, [(2304, 768), (768, 768), (3072, 768), (768, 3072)]
SECONDS, RESTED_SECONDS, REST = 2.5, 1, 0.02


def watch(stop, seen):
    """Notes power in watts, clock in MHz and temperature, twenty times a second."""
    query = ["nvidia-smi", "--query-gpu=power.draw.instant,clocks.sm,temperature.gpu", "--format=csv,noheader,nounits", "-lms", "50"]
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        while not stop.is_set():
            seen.append((time.time(), process.stdout.readline().strip()))
        process.kill()


def graph(rows, dtype, scale):
    """The products as a graph, and what it refers to."""
    torch.manual_seed(0)
    weights = [[torch.randn(o, i, device="cuda").mul_(0.04 * scale).to(dtype) for o, i in PRODUCTS] for _ in range(LAYERS)]
    inputs = [(torch.randn(rows, i, device="cuda") * scale).to(dtype) for _, i in PRODUCTS]
    outputs = [torch.empty(rows, o, device="cuda", dtype=dtype) for o, _ in PRODUCTS]

    def run():
        for layer in weights:
            for w, x, y in zip(layer, inputs, outputs, strict=True):
                torch.mm(x, w.t(), out=y)

    with torch.cuda.stream(torch.cuda.Stream()):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    made = torch.cuda.CUDAGraph()
    with torch.cuda.graph(made):
        run()
    return made, (weights, inputs, outputs)


def check(weights, inputs, outputs):
    """Ends the program where a product of the last layer is not what f32 gives."""
    for w, x, y in zip(weights[-1], inputs, outputs, strict=True):
        if not torch.allclose(y.float(), x.float() @ w.float().t(), rtol=1e-2, atol=2e-2):
            sys.exit(f"{tuple(x.shape)} times {tuple(w.shape)} is wrong in {y.dtype}")


def main():
    stop, seen = threading.Event(), []
    threading.Thread(target=watch, args=(stop, seen), daemon=True).start()
    time.sleep(1)
    all_rows = [int(rows) for rows in sys.argv[1:]] or [3904, 1600]
    cases = [(name, getattr(torch, kind), rows, scale) for rows in all_rows for name, kind, scale in
             [("f16", "float16", 1), ("f16", "float16", 0), ("bf16", "bfloat16", 1)]]
    for name, dtype, rows, scale in cases:
        made, kept = graph(rows, dtype, scale)
        for rest in (REST, 0):
            time.sleep(0.5)
            times, begun = [], time.time()
            end = begun + (RESTED_SECONDS if rest else SECONDS)
            while time.time() < end:
                start = time.perf_counter()
                made.replay()
                torch.cuda.synchronize()
                times.append((time.perf_counter() - start) * 1e3)
                if rest:
                    time.sleep(rest)
            check(*kept)
            shown = [line for when, line in seen if begun + 0.5 < when < end]
            median = lambda part: round(statistics.median(part), 4)
            print(json.dumps({"floor": name, "rows": rows, "scale": scale, "rest": rest, "n": len(times), "first200": median(times[:200]),
                              "last": median(times[-200:]), "least": round(min(times), 4), "smi": shown[-2:]}), flush=True)
        del made, kept
    stop.set()


if __name__ == "__main__":
    main()
