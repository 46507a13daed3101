"""Makes what ONNX Runtime and OpenVINO read from a checkpoint, once: `converted` gives the file's path, from a cache if it is there.

The cache is the folder MLXT_STUDY_CACHE, else one in the user's cache folder. A conversion is a process of its own
(this file as a program), so that neither its memory nor its threads are those of the engine that is measured.
"""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from protocol import weights

# What of each kind is made from which packages; a new version of one makes it anew.
PACKAGES = {
    "plain": ("torch", "transformers", "onnx"),
    "fused": ("torch", "transformers", "onnx", "onnxruntime"),
    "fused-int8": ("torch", "transformers", "onnx", "onnxruntime"),
    "openvino-int8": ("torch", "transformers", "onnx", "openvino", "nncf"),
}
FILES = {kind: "model.onnx" for kind in PACKAGES} | {"openvino-int8": "model.xml"}


def key(model, kind):
    """A name for the conversion: the checkpoint's bytes, what is made of it, by what."""
    hashed = hashlib.sha256()
    for file in (model / "config.json", *weights(model)):
        with file.open("rb") as stream:
            hashed.update(hashlib.file_digest(stream, "sha256").digest())
    for package in PACKAGES[kind]:
        hashed.update(f"{package} {importlib.metadata.version(package)}\n".encode())
    hashed.update(Path(__file__).read_bytes())
    return f"{kind}-{hashed.hexdigest()[:24]}"


def converted(model, kind):
    """The file of a checkpoint converted: inputs `ids` and `mask` (both i64 `[sequences, tokens]`; without a mask the optimizer
    of ONNX Runtime would not fuse attention), result `hidden`. `kind` is a key of PACKAGES."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("MLXT_STUDY_CACHE") or home / "mlx-transformers" / "study")
    made = cache / key(model, kind)
    if not made.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=cache, prefix="unfinished-"))
        try:
            command = [sys.executable, __file__, str(model), kind, str(work)]
            environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"} | {"HF_HUB_OFFLINE": "1"}
            result = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if result.returncode:
                raise RuntimeError(f"the conversion to {kind} ended with {result.returncode}: {result.stdout[-2000:]}")
            try:
                work.rename(made)
            except OSError:  # another process was first: its files are as good
                if not made.is_dir():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return made / FILES[kind]


def plain(model, to):
    import torch
    from transformers import AutoModel

    options = {"dtype": torch.float32, "attn_implementation": "eager", "output_loading_info": True}
    try:
        loaded, info = AutoModel.from_pretrained(model, add_pooling_layer=False, **options)
    except TypeError:  # a family that has no pooling layer to leave out
        loaded, info = AutoModel.from_pretrained(model, **options)
    if info["missing_keys"]:
        raise ValueError(f"the checkpoint lacks weights: {', '.join(sorted(info['missing_keys'])[:3])}, ..")

    class Headless(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = loaded.eval()

        def forward(self, ids, mask):
            return self.inner(input_ids=ids, attention_mask=mask).last_hidden_state

    # Ids above the padding one, so that positions are counted from them.
    ids = torch.arange(14).reshape(2, 7) + 5
    sizes = {name: {0: "sequences", 1: "tokens"} for name in ("ids", "mask", "hidden")}
    with torch.inference_mode():
        # By tracing: of what the other exporter gives, the optimizer of ONNX Runtime 1.32 does not recognise attention.
        torch.onnx.export(Headless(), (ids, torch.ones_like(ids)), to, input_names=["ids", "mask"], output_names=["hidden"],
                          dynamic_axes=sizes, opset_version=17, dynamo=False)


def fused(model, to):
    import json

    from onnxruntime.transformers import optimizer

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    fused = optimizer.optimize_model(str(converted(model, "plain")), "bert", config["num_attention_heads"], config["hidden_size"])
    fused.save_model_to_file(str(to), use_external_data_format=True)


def fused_int8(model, to):
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # The fused operations are of a domain that shape inference does not know.
    options = {"DefaultTensorType": TensorProto.FLOAT}
    quantize_dynamic(converted(model, "fused"), to, per_channel=True, weight_type=QuantType.QInt8, extra_options=options)


def openvino_int8(model, to):
    import nncf
    import openvino

    read = openvino.Core().read_model(converted(model, "plain"))
    openvino.save_model(nncf.compress_weights(read, mode=nncf.CompressWeightsMode.INT8_SYM), to, compress_to_fp16=False)


if __name__ == "__main__":
    model, kind, folder = sys.argv[1:]
    make = {"plain": plain, "fused": fused, "fused-int8": fused_int8, "openvino-int8": openvino_int8}[kind]
    make(Path(model), Path(folder) / FILES[kind])
