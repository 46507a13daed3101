#!/usr/bin/env python3
"""A worker that computes nothing: its mode says how it behaves, its clock is a script, and what it was asked is in a log."""

import json
import os
import struct
import sys
import time

mode, dtype, clock, starts = "", "", 1000, 0


def reply(value):
    print(json.dumps(value), flush=True)


def log(what):
    with open(os.environ["FAKE_LOG"], "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()} {mode} {what}\n")


def fault(stage, message, **more):
    reply({"error": {"stage": stage, "message": message, **more}})


for line in sys.stdin:
    request = json.loads(line)
    do = request["do"]
    if do == "hello":
        reply({"ok": {"protocol": 1, "name": "Fake", "version": "1", "detail": ""}})
    elif do == "probe":
        reply({"ok": {"gflops": {"f32": 1e5}, "gigabytes_per_second": 1.0}})
    elif do in ("load", "open"):
        mode, dtype = request["mode"], request["dtype"]
        log(do)
        if mode == "parent" and do == "load":
            child = os.fork()
            if not child:
                time.sleep(600)
                os._exit(0)
            log(f"child {child}")
        if mode == "absent":
            fault("load", "no such device")
        elif mode == "unloadable" and do == "load":
            fault("load", "weights of another model")
        else:
            reply({"ok": {"seconds": 0.5, "detail": "scripted"}})
    elif do == "batch":
        rows = sum(len(ids) for ids in request["ids"])
        reply({"ok": {}})
    elif do == "output":
        values = [1.0, 2.0] * rows
        if mode == "wrong":
            values[-1] += 0.1
        if mode == "nan":
            values[0] = float("nan")
        data = struct.pack(f"<{len(values)}f", *values)
        with open(request["file"], "wb") as file:
            file.write(data[:-4] if mode == "cut" else data)
        reply({"ok": {"shape": [rows, 2] if mode != "other-shape" else [2, rows], "dtype": "f32"}})
    elif do == "run":
        count = request["iterations"]
        log(f"run {count}")
        if mode == "crash":
            print("the end is near", file=sys.stderr, flush=True)
            os._exit(7)
        if mode == "killed":
            os.kill(os.getpid(), 9)
        if mode == "hang":
            time.sleep(60)
        if mode == "garbage":
            print("progress: 50 %", flush=True)
            continue
        if mode == "error":
            fault("memory", "out of memory")
            continue
        clock += 1
        times = [{"no-time": 0, "no-wait": 1}.get(mode, clock)] * (count - 1 if mode == "short" else count)
        reply({"ok": {"host_ns": times, "device_ns": None}})
