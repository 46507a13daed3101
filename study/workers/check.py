"""Drives workers over the protocol and compares what they give: models with golden hidden states (fixtures/), operations with
numpy in float64, hostile requests with the errors they have to be.

    python study/workers/check.py torch=/venvs/torch/bin/python mlx=/venvs/mlx/bin/python

Each argument names an environment of peers.toml and its interpreter; every peer of that environment is checked. A peer that
does not start is a failure. Needs numpy and safetensors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from check_operations import cases

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent.parent / "fixtures"
FAMILIES = ("bert", "roberta", "xlm-roberta")
# The largest difference relative to the largest value of the result; of 8 and 4 bits on values drawn at random only the order is known.
# The golden values are 32-bit floats: more bits do not come closer.
MODEL_TOLERANCE = {"f64": 2e-5, "f32": 2e-5, "tf32": 1e-2, "bf16": 6e-2, "f16": 1e-2, "int8": 1e-1}
OPERATION_TOLERANCE = {"LinearInt8": 3e-2, "LinearQ4": 2e-1}
TOLERANCE = 5e-6
# Seconds in which everybody rests before a turn, as in crates/study/src/runner/cell.rs.
REST = 0.025


class Worker:
    """A worker process; `ask` gives what it replies."""

    def __init__(self, python, file, environment):
        self.process = subprocess.Popen(
            [python, HERE / file], env=os.environ | environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def line(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        if not reply:
            sys.exit(f"the worker ended with {self.process.wait()} on {text[:200]}")
        return json.loads(reply)

    def ask(self, do, **fields):
        return self.line(json.dumps({"do": do, **fields}))

    def ok(self, do, **fields):
        reply = self.ask(do, **fields)
        if "ok" not in reply:
            sys.exit(f"{do} {fields}: {reply}")
        return reply["ok"]

    def error(self, stage, do, **fields):
        reply = self.ask(do, **fields)
        if reply.get("error", {}).get("stage") != stage or reply["error"].get("fatal"):
            sys.exit(f"{do} {fields}: expected an error of stage {stage}, found {reply}")

    def output(self, folder):
        file = folder / "output.bin"
        described = self.ok("output", file=str(file))
        values = np.fromfile(file, {"f32": "<f4", "i32": "<i4"}[described["dtype"]])
        return values.reshape(described["shape"])

    def end(self):
        """A worker ends when its input does."""
        self.process.stdin.close()
        if self.process.wait(timeout=60):
            sys.exit(f"the worker ended with {self.process.returncode}")


def compare(what, found, expected, tolerance):
    if found.shape != expected.shape:
        sys.exit(f"{what}: shape {found.shape}, expected {expected.shape}")
    if found.dtype.kind == "i":
        error, tolerance = np.abs(found - expected).max(), 0
    else:
        error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
    if not error <= tolerance:
        sys.exit(f"{what}: differs by {error:.2e} of the largest value, tolerance {tolerance:.0e}")


def times(reply, iterations):
    """A run's times: as many as asked for, all above zero."""
    if len(reply["host_ns"]) != iterations or min(reply["host_ns"]) <= 0:
        sys.exit(f"run: {reply}")


def models(worker, setting, folder, families):
    tolerance = MODEL_TOLERANCE[setting["dtype"]]
    for family in families:
        described = json.loads((FIXTURES / family / "golden.json").read_text(encoding="utf-8"))["cases"]
        golden = load_file(FIXTURES / family / "golden.safetensors")
        cases = [(case["ids"], golden[f"hidden.{i}"]) for i, case in enumerate(described)
                 if not any(case["type_ids"]) and len(case["ids"]) > 2]
        reply = worker.ask("load", model=str(FIXTURES / family), **setting)
        if reply.get("error", {}).get("stage") == "unsupported":
            # Right for 16 bits, which not every machine has; f32 is there always.
            if setting["dtype"] == "f32":
                sys.exit(f"load {family} {setting}: {reply}")
            print(f"  not here: {reply['error']['message']}")
            return
        if "ok" not in reply:
            sys.exit(f"load {family} {setting}: {reply}")
        # Different lengths together, one alone, the same twice.
        for chosen in (cases[:3], cases[1:2], [cases[0], cases[0]]):
            worker.ok("batch", ids=[ids for ids, _ in chosen])
            times(worker.ok("run", iterations=2), 2)
            expected = np.concatenate([hidden for _, hidden in chosen])
            compare(f"{family} {setting}", worker.output(folder), expected, tolerance)


def operation(name, inputs, axis, settings, expected, folder):
    """The fields of the request."""
    described = []
    for i, array in enumerate(inputs):
        file = folder / f"input-{i}.bin"
        array.tofile(file)
        described.append({"file": str(file), "shape": array.shape, "dtype": "i32" if array.dtype.kind == "i" else "f32"})
    output = {"shape": expected.shape, "dtype": "i32" if expected.dtype.kind == "i" else "f32"}
    fields = {"operation": name, "inputs": described, "output": output}
    return fields | ({} if axis is None else {"axis": axis}) | ({} if settings is None else {"settings": settings})


def operations(worker, setting, folder, names=None):
    worker.ok("open", **setting)
    for name, inputs, axis, settings, expected in cases():
        if names and name not in names:
            continue
        fields = operation(name, inputs, axis, settings, expected, folder)
        if name in OPERATION_TOLERANCE and setting["device"] != "cpu":
            # Weights of few bits, which not every engine has on every device.
            reply = worker.ask("operation", **fields)
            if reply.get("error", {}).get("stage") == "unsupported":
                print(f"  not here: {reply['error']['message']}")
                continue
        worker.ok("operation", **fields)
        times(worker.ok("run", iterations=2), 2)
        compare(f"{name} {axis} {setting}", worker.output(folder), expected, OPERATION_TOLERANCE.get(name, TOLERANCE))


def hostile(worker, mode, folder):
    setting = mode["setting"]
    for text in ("{", "[]", "3", "{}", '{"do": "nonsense"}', '{"do": ["hello"]}'):
        reply = worker.line(text)
        if "error" not in reply:
            sys.exit(f"{text}: {reply}")
    worker.error("run", "run", iterations=1)
    worker.error("load", "load", model="/nowhere", **setting)
    worker.error("load", "load", model=str(FIXTURES / "bert"))
    worker.error("unsupported", "load", model=str(FIXTURES / "bert"), **setting | {"dtype": "f7"})
    worker.error("unsupported", "load", model=str(FIXTURES / "bert"), **setting | {"mode": "best"})
    if mode["models"]:
        worker.ok("load", model=str(FIXTURES / "bert"), **setting)
        for ids in ([], [[]], [[1], []], [["a"]], "text"):
            worker.error("batch", "batch", ids=ids)
        worker.error("run", "run", iterations=1)
        worker.ok("batch", ids=[[2, 5, 3]])
        worker.error("output", "output", file=str(folder / "no" / "such" / "folder"))
    worker.ok("open", **setting)
    x = np.ones((2, 3), np.float32)
    fields = operation("ReLU", [x], None, None, x, folder)
    if mode["operations"]:
        worker.error("unsupported", "operation", **fields | {"operation": "Nonsense"})
        for wrong in ({"file": str(folder / "none")}, {"shape": [7]}, {"dtype": "f7"}):
            worker.error("operation", "operation", **fields | {"inputs": [fields["inputs"][0] | wrong]})
        worker.ok("operation", **fields)
    else:
        worker.error("unsupported", "operation", **fields)
    worker.ok("hello")


def idle(worker, setting):
    """Threads that spin when others have their turn slow them. Whoever is next waits for REST."""
    counts = lambda: sum(int(Path(task, "schedstat").read_text().split()[0]) for task in Path(f"/proc/{worker.process.pid}/task").iterdir())
    if not Path(f"/proc/{worker.process.pid}/schedstat").exists():
        return
    # Enough work for all threads.
    case = max(json.loads((FIXTURES / "bert" / "golden.json").read_text(encoding="utf-8"))["cases"], key=lambda case: len(case["ids"]))
    worker.ok("load", model=str(FIXTURES / "bert"), **setting)
    worker.ok("batch", ids=[case["ids"]] * 64)
    times(worker.ok("run", iterations=5), 5)
    time.sleep(REST)
    before = counts()
    time.sleep(0.2)
    used = (counts() - before) / 1e9
    if used > 0.05:
        sys.exit(f"{REST} s after its turn an idle worker used {used:.3f} s of 0.2")


def settings(peer, kind, optional):
    """The modes of a peer on a kind of device: name, environment variables, f32's setting, those of other dtypes, whether
    it runs models and operations."""
    modes = {}
    for entry in peer["mode"]:
        device = next((d for d in entry.get("devices", peer["devices"]) if d.rpartition(":")[2] == kind), None)
        if device is None or (entry.get("env") and not optional):
            continue
        mode = modes.setdefault(entry["id"], {"env": entry.get("env", {}), "dtypes": [], "models": False, "operations": False})
        mode["setting"] = {"device": device, "dtype": "f32", "mode": entry["id"], "threads": 2}
        mode["dtypes"] += [dtype for dtype in entry["dtypes"] if dtype != "f32"]
        for kind_of_cell in ("models", "operations"):
            mode[kind_of_cell] |= entry.get(kind_of_cell, False)
    return modes


def check(peer, python, cache, modes):
    for i, (name, mode) in enumerate(modes.items()):
        worker = Worker(python, peer["worker"], {"MLXT_STUDY_CACHE": cache} | mode["env"])
        who = worker.ok("hello")
        print(f"{who['name']} {who['version']}, {name}: {who['detail']}", flush=True)
        setting = mode["setting"]
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            # Everything in the first mode, and enough of the others to show that they work.
            if i == 0:
                hostile(worker, mode, folder)
            if mode["models"]:
                models(worker, setting, folder, FAMILIES if i == 0 else FAMILIES[:1])
                for dtype in mode["dtypes"] if i == 0 else ():
                    models(worker, setting | {"dtype": dtype}, folder, FAMILIES[:1])
                idle(worker, setting)
            if mode["operations"]:
                operations(worker, setting, folder, None if i == 0 else ("LinearGelu", "Scatter", "SelfAttention"))
        worker.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environments", nargs="+", metavar="NAME=PYTHON")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, mps or gpu (MLX's); peers without it are left out")
    parser.add_argument("--optional", action="store_true", help="also modes that need libraries of the system")
    parser.add_argument("--peer", help="this one alone")
    arguments = parser.parse_args()
    pythons = dict(argument.split("=", 1) for argument in arguments.environments)
    peers = tomllib.loads((HERE.parent / "peers.toml").read_text(encoding="utf-8"))["peer"]
    unknown = pythons.keys() - {peer.get("environment") for peer in peers}
    if unknown:
        sys.exit(f"peers.toml has no environment {', '.join(unknown)}")
    checked = 0
    with tempfile.TemporaryDirectory() as cache:
        for peer in peers:
            modes = settings(peer, arguments.device, arguments.optional)
            if peer.get("environment") in pythons and arguments.peer in (None, peer["id"]) and modes:
                start = time.monotonic()
                check(peer, pythons[peer["environment"]], cache, modes)
                print(f"  {peer['id']}: right ({time.monotonic() - start:.0f} s)", flush=True)
                checked += 1
    if not checked:
        sys.exit("these environments hold no peer that was asked for")


if __name__ == "__main__":
    main()
