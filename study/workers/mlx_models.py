"""BERT, RoBERTa and XLM-RoBERTa in MLX, as its user would write them: weights read once, no head, no pooler."""

import json

import mlx.core as mx
import mlx.nn as nn

from protocol import weights

ACTIVATIONS = {"gelu": nn.gelu, "gelu_new": nn.gelu_approx, "relu": nn.relu, "silu": nn.silu}
ROBERTA = ("roberta", "xlm-roberta", "camembert")
# Weights of 8 bits have a scale and an offset for this many inputs, or for half of them where those don't divide.
GROUPS = (64, 32)


def matrix(w, bits):
    """A weight `[outputs, inputs]` as `linear` takes it: whole, or quantized if its inputs can be put in groups."""
    if not bits:
        return w
    group = next((g for g in GROUPS if w.shape[1] % g == 0), None)
    return (*mx.quantize(w, group, bits), group, bits) if group else w


def linear(x, w, b):
    if isinstance(w, tuple):
        quantized, scales, biases, group, bits = w
        return mx.quantized_matmul(x, quantized, scales, biases, transpose=True, group_size=group, bits=bits) + b
    return mx.addmm(b, x, w.T)


class Encoder:
    """Call it with ids `[sequences, tokens]` and a mask of the same shape (1: a token) or None; gives `[sequences, tokens, hidden]`."""

    def __init__(self, folder, dtype, bits=None):
        self.config = config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        family = config["model_type"]
        if family not in ("bert", *ROBERTA):
            raise ValueError(f"models of type bert or {', '.join(ROBERTA)}, not {family}")
        if config["hidden_act"] not in ACTIVATIONS:
            raise ValueError(f"an activation of {', '.join(ACTIVATIONS)}, not {config['hidden_act']}")
        self.act, self.heads, self.eps = ACTIVATIONS[config["hidden_act"]], config["num_attention_heads"], config["layer_norm_eps"]
        # RoBERTa's positions start after the padding id.
        self.first = config["pad_token_id"] + 1 if family in ROBERTA else 0

        stored = {}
        for file in weights(folder):
            stored |= mx.load(str(file))
        prefix = next((p for p in ("", "bert.", "roberta.") if f"{p}embeddings.word_embeddings.weight" in stored), "")

        def get(name):
            if prefix + name not in stored:
                raise ValueError(f"{folder} lacks the weight {prefix + name}")
            return stored[prefix + name].astype(dtype)

        def pair(name, bits=None):
            return matrix(get(f"{name}.weight"), bits), get(f"{name}.bias")

        self.words, self.positions, self.types = (get(f"embeddings.{n}_embeddings.weight") for n in ("word", "position", "token_type"))
        self.norm = pair("embeddings.LayerNorm")
        self.layers = []
        for i in range(config["num_hidden_layers"]):
            layer = f"encoder.layer.{i}."
            parts = [pair(f"{layer}attention.self.{n}") for n in ("query", "key", "value")]
            # The three projections as one product.
            qkv = matrix(mx.concatenate([w for w, _ in parts]), bits), mx.concatenate([b for _, b in parts])
            named = {"attention": "attention.output.dense", "up": "intermediate.dense", "down": "output.dense"}
            norms = {"after_attention": "attention.output.LayerNorm", "after": "output.LayerNorm"}
            self.layers.append({"qkv": qkv} | {k: pair(layer + n, bits) for k, n in named.items()} | {k: pair(layer + n) for k, n in norms.items()})
        mx.eval(self.words, self.positions, self.types, self.norm, self.layers)

    def __call__(self, ids, mask):
        positions = self.positions[self.first:self.first + ids.shape[1]]
        x = mx.fast.layer_norm(self.words[ids] + positions + self.types[0], *self.norm, self.eps)
        # Padding comes last, so that positions need not know of it.
        seen = None if mask is None else (mask[:, None, None, :] > 0)
        for layer in self.layers:
            attended = linear(self.attention(linear(x, *layer["qkv"]), seen), *layer["attention"])
            x = mx.fast.layer_norm(x + attended, *layer["after_attention"], self.eps)
            inner = self.act(linear(x, *layer["up"]))
            x = mx.fast.layer_norm(x + linear(inner, *layer["down"]), *layer["after"], self.eps)
        return x

    def attention(self, qkv, seen):
        sequences, tokens, width = qkv.shape
        size = width // (3 * self.heads)
        q, k, v = qkv.reshape(sequences, tokens, 3, self.heads, size).transpose(2, 0, 3, 1, 4)
        attended = mx.fast.scaled_dot_product_attention(q, k, v, scale=size**-0.5, mask=seen)
        return attended.transpose(0, 2, 1, 3).reshape(sequences, tokens, -1)
