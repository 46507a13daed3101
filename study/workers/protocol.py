"""The loop that every Python worker shares: requests in, replies out, and the clock (see ../PROTOCOL.md).

What an engine does is not here: that is a class with the methods of `Engine`, one file each.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy

VERSION = 1
DTYPES = {"f32": "<f4", "i32": "<i4"}
# A mode that ends so runs a batch in parts.
BUCKETS, BUCKET = "-buckets", 8
# Engines say that memory ran out in exceptions of their own; these words are what they have in common.
OUT_OF_MEMORY = ("out of memory", "bad_alloc", "can't allocate memory", "not enough memory")


class Unsupported(Exception):
    """What was asked for is right, but this engine has not got it."""


class Engine:
    """What a worker overrides. Time runs during the function that `batch` and `operation` return, nowhere else."""

    name = ""
    version = ""

    def hello(self):
        """What else there is to know: the libraries below, the device."""
        return ""

    def load(self, model, device, dtype, mode, threads):
        """Reads the checkpoint in the folder `model`; gives the detail."""
        raise Unsupported(f"{self.name} here runs no models")

    def open(self, device, dtype, mode, threads):
        """Sees that it can run so, and gets ready for operations where it has any; gives the detail."""
        raise Unsupported(f"{self.name} cannot be opened")

    def batch(self, ids):
        """Takes arrays of ids (int64, one for each sequence). Gives a function without arguments that computes the last
        hidden state and leaves it in host memory, and one that makes the result of the first an array
        `[sequences, longest, hidden]`."""
        raise Unsupported(f"{self.name} here runs no models")

    def operation(self, name, inputs, axis, settings):
        """Takes arrays. Gives a function without arguments that computes the result and leaves it, finished, on the device,
        one that makes that an array, and the detail."""
        raise Unsupported(f"{self.name} here runs no operations")

    def device_ns(self):
        """How long the device itself was busy with the last run, where it can tell."""
        return None


class Request(dict):
    def __missing__(self, key):
        raise ValueError(f"the request has no `{key}`")


class Loop:
    """One method for each request; what a method gives is the `ok` of the reply."""

    def __init__(self, engine):
        self.engine = engine
        self.compute, self.collect, self.lengths = None, None, None
        self.buckets = False

    def hello(self, request):
        return {"protocol": VERSION, "name": self.engine.name, "version": self.engine.version, "detail": self.engine.hello()}

    def load(self, request):
        model = Path(request["model"])
        if not (model / "config.json").is_file() or not weights(model):
            raise FileNotFoundError(f"{model} holds no checkpoint: config.json and model.safetensors")
        return self.prepare(self.engine.load, model, request)

    def open(self, request):
        return self.prepare(self.engine.open, request)

    def prepare(self, how, *arguments):
        *arguments, request = arguments
        self.compute = None
        start = time.perf_counter_ns()
        mode, self.buckets = request["mode"].removesuffix(BUCKETS), request["mode"].endswith(BUCKETS)
        detail = how(*arguments, request["device"], request["dtype"], mode, request["threads"])
        seconds = (time.perf_counter_ns() - start) / 1e9
        return {"seconds": seconds, "detail": detail + (f", {BUCKET} sequences of like length at a time" if self.buckets else "")}

    def batch(self, request):
        self.compute = None
        ids = [numpy.asarray(row, dtype=numpy.int64) for row in request["ids"]]
        if not ids or any(row.ndim != 1 or not row.size for row in ids):
            raise ValueError("a batch is one or more sequences of one or more ids")
        compute, self.collect = in_buckets(ids, self.engine.batch) if self.buckets else self.engine.batch(ids)
        self.compute, self.lengths = compute, [row.size for row in ids]
        return {}

    def operation(self, request):
        self.compute = None
        inputs = [read(i) for i in request["inputs"]]
        compute, self.collect, detail = self.engine.operation(
            request["operation"], inputs, request.get("axis"), dict(request.get("settings") or {}))
        self.compute, self.lengths = compute, None
        return {"detail": detail} if detail else {}

    def run(self, request):
        self.ready()
        host, device = [], []
        for _ in range(request["iterations"]):
            start = time.perf_counter_ns()
            self.compute()
            host.append(time.perf_counter_ns() - start)
            device.append(self.engine.device_ns())
        return {"host_ns": host, "device_ns": None if None in device else device}

    def output(self, request):
        self.ready()
        start = time.perf_counter_ns()
        result = self.compute()
        took = time.perf_counter_ns() - start
        values = self.collect(result)
        if self.lengths:
            values = numpy.concatenate([row[:length] for row, length in zip(values, self.lengths)])
        dtype = "i32" if values.dtype.kind == "i" else "f32"
        numpy.ascontiguousarray(values, dtype=DTYPES[dtype]).tofile(request["file"])
        return {"shape": list(values.shape), "dtype": dtype, "host_ns": took}

    def ready(self):
        if self.compute is None:
            raise RuntimeError("there is nothing to compute yet: a batch or an operation comes first")


REQUESTS = {name: getattr(Loop, name) for name in ("hello", "load", "open", "batch", "operation", "run", "output")}
# The stage of an error that is not named like its request.
STAGES = {"hello": "start", "open": "load"}


def filler(model):
    """The id that pads, by the checkpoint's own configuration."""
    return json.loads((model / "config.json").read_text(encoding="utf-8")).get("pad_token_id") or 0


def weights(model):
    """The files of a checkpoint's weights: one, or several where it is split."""
    return sorted(model.glob("model*.safetensors"))


def in_buckets(ids, batch):
    """What `batch` gives, but sorted by length and a few sequences at a time: what is padded then is little. The rows of the
    result are as long as the longest of their few."""
    order = sorted(range(len(ids)), key=lambda i: ids[i].size)
    buckets = [order[first:first + BUCKET] for first in range(0, len(order), BUCKET)]
    parts = [batch([ids[i] for i in bucket]) for bucket in buckets]

    def collect(results):
        rows = {i: row for bucket, result in zip(buckets, results) for i, row in zip(bucket, result)}
        return [rows[i] for i in range(len(ids))]

    return lambda: [collect(compute()) for compute, collect in parts], collect


def read(described):
    """The array that a request describes: file, shape, dtype."""
    dtype, shape = DTYPES.get(described["dtype"]), described["shape"]
    if dtype is None:
        raise ValueError(f"inputs are of dtype {' or '.join(DTYPES)}, not {described['dtype']}")
    values = numpy.fromfile(described["file"], dtype=dtype)
    if values.size != numpy.prod(shape, dtype=numpy.int64):
        raise ValueError(f"{described['file']} holds {values.size} values, expected shape {shape}")
    return values.reshape(shape)


def failure(request, error):
    """The error reply for an exception."""
    message = f"{type(error).__name__}: {error}"
    stage = STAGES.get(request, request if request in REQUESTS else "run")
    if isinstance(error, Unsupported):
        stage, message = "unsupported", str(error)
    elif isinstance(error, MemoryError) or any(words in message.lower() for words in OUT_OF_MEMORY):
        stage = "memory"
    reply = {"stage": stage, "message": message}
    if "CUDA error" in message:  # the context is lost: nothing works any more in this process
        reply["fatal"] = True
    return {"error": reply}


def answer(loop, line):
    """The reply to one line, whatever it holds."""
    name = None
    try:
        request = json.loads(line, object_hook=Request)
        if not isinstance(request, dict) or request.get("do") not in REQUESTS:
            raise ValueError(f"`do` is one of {', '.join(REQUESTS)}")
        name = request["do"]
        return {"ok": REQUESTS[name](loop, request)}
    except Exception as error:  # a reply, whatever it was: the next request may be fine
        return failure(name, error)


def serve(start):
    """Answers requests until there are no more. `start` makes the engine: its imports belong in there."""
    # Replies go to a copy of standard output; what libraries print goes to standard error instead.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    loop, broken = None, None
    try:
        loop = Loop(start())
    except Exception as error:
        broken = failure("hello", error)
        broken["error"]["fatal"] = True
    for line in sys.stdin:
        if line.strip():
            replies.write(json.dumps(broken or answer(loop, line)) + "\n")
            replies.flush()
        if broken:
            break


def pad(ids, filler, always=False):
    """Sequences as one rectangle `[sequences, longest]`, and a mask of the same shape (1: a token) if lengths differ, or
    `always`."""
    lengths = [row.size for row in ids]
    longest = max(lengths)
    if min(lengths) == longest:
        return numpy.stack(ids), numpy.ones((len(ids), longest), numpy.int64) if always else None
    padded = numpy.full((len(ids), longest), filler, dtype=numpy.int64)
    for row, values in zip(padded, ids):
        row[:values.size] = values
    return padded, (numpy.arange(longest) < numpy.array(lengths)[:, None]).astype(numpy.int64)
