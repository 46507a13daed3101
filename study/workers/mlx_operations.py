"""The study's operations in MLX, each as its user would write it. What they mean: ../OPERATIONS.md.

Each entry of `OPERATIONS` takes the arrays (evaluated), then `axis` and `settings` by name where it needs them, and gives a function without
arguments: only that, and the evaluation of its result, is timed.
"""

import mlx.core as mx
import mlx.nn as nn
import numpy

GROUP = 64


def pointwise(function):
    return lambda *inputs: lambda: function(*inputs)


def along(function):
    return lambda *inputs, axis: lambda: function(*inputs, axis=axis)


def last_wins(x, source, target):
    # MLX does not say which of several writes to a row stays, so each row's last one is found first.
    def scatter():
        last = mx.full((len(x),), -1, mx.int32).at[target].maximum(mx.arange(target.size, dtype=mx.int32))
        return mx.where(last[:, None] < 0, 0, x[source[mx.maximum(last, 0)]])

    return scatter


def layer_norm(x):
    return lambda: mx.fast.layer_norm(x, None, None, 1e-5)


def linear(x, w, b, then=lambda y: y):
    return lambda: then(mx.addmm(b, x, w))


def quantized(bits):
    def build(x, w, b):
        parts = mx.quantize(w.T, GROUP, bits)
        mx.eval(parts)
        return lambda: mx.quantized_matmul(x, *parts, transpose=True, group_size=GROUP, bits=bits) + b

    return build


def attention(q, k, v, mask=None):
    return mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask)


def causal_attention(q, k, v):
    queries, keys = q.shape[2], k.shape[2]
    # MLX's own causal mask lets the last query see the last key, here the first sees the first: the same if as many.
    return lambda: attention(q, k, v, "causal" if queries == keys else mx.tri(queries, keys, dtype=mx.bool_))


def self_attention(q, k, v, lengths):
    if lengths.min().item() == q.shape[2]:
        return lambda: attention(q, k, v)

    def masked():
        seen = mx.arange(q.shape[2]) < lengths[:, None]
        return attention(q, k, v, seen[:, None, None, :]) * seen[:, None, :, None]

    return masked


def ragged_attention(qkv, lengths, settings):
    heads, lengths = settings["heads"], lengths.tolist()
    bounds = [sum(lengths[:i]) for i in range(1, len(lengths))]

    def one(rows, sequences):
        q, k, v = rows.reshape(sequences, -1, 3, heads, rows.shape[1] // (3 * heads)).transpose(2, 0, 3, 1, 4)
        return attention(q, k, v).transpose(0, 2, 1, 3).reshape(rows.shape[0], -1)

    if len(set(lengths)) == 1:
        return lambda: one(qkv, len(lengths))
    return lambda: mx.concatenate([one(rows, 1) for rows in mx.split(qkv, bounds)])


def rope(x):
    return lambda: mx.fast.rope(x, x.shape[-1], traditional=False, base=10000.0, scale=1.0, offset=0)


def mean_pool_normalize(x, lengths):
    ends = [sum(lengths.tolist()[:i + 1]) for i in range(lengths.size)]
    sequences = mx.array([i for i, (a, b) in enumerate(zip([0, *ends], ends)) for _ in range(a, b)])
    mx.eval(sequences)

    def pool():
        means = mx.zeros((lengths.size, x.shape[1]), x.dtype).at[sequences].add(x) / lengths[:, None]
        return means / mx.linalg.norm(means, axis=1, keepdims=True)

    return pool


def to_device(x):
    host = numpy.array(x)
    return lambda: mx.array(host)


OPERATIONS = {
    "Argmax": along(mx.argmax),
    "BCE": lambda p, y: lambda: nn.losses.binary_cross_entropy(p, y, with_logits=False, reduction="mean").reshape(1),
    "Concat": lambda a, b, axis: lambda: mx.concatenate([a, b], axis),
    "Conv1d": pointwise(mx.conv1d),
    "Conv2d": pointwise(mx.conv2d),
    "Gather": lambda x, index: lambda: x[index],
    "Scatter": last_wins,
    "ScatterSum": lambda x, source, target: lambda: mx.zeros_like(x).at[target].add(x[source]),
    "ScatterMax": lambda x, source, target: lambda: mx.zeros_like(x).at[target].maximum(x[source]),
    "LayerNorm": layer_norm,
    "LeakyReLU": pointwise(nn.leaky_relu),
    "Linear": linear,
    "MatMul": pointwise(mx.matmul),
    "PReLU": pointwise(nn.prelu),
    "ReLU": pointwise(nn.relu),
    "ScaledDotProductAttention": causal_attention,
    "SeLU": pointwise(nn.selu),
    "Sigmoid": pointwise(mx.sigmoid),
    "Softplus": pointwise(nn.softplus),
    "Softmax": along(mx.softmax),
    "Sort": along(mx.sort),
    "Sum": along(mx.sum),
    "SumAll": lambda x: lambda: x.sum().reshape(1),
    "Gelu": pointwise(nn.gelu),
    "GeluTanh": pointwise(nn.gelu_approx),
    "Embedding": lambda table, index: lambda: table[index],
    "AddLayerNorm": lambda x, r, gain, shift: lambda: mx.fast.layer_norm(x + r, gain, shift, 1e-12),
    "RMSNorm": lambda x, gain: lambda: mx.fast.rms_norm(x, gain, 1e-6),
    "RoPE": rope,
    "LinearGelu": lambda x, w, b: linear(x, w, b, nn.gelu),
    "PackedQKV": linear,
    "SelfAttention": self_attention,
    "RaggedAttention": ragged_attention,
    "LinearInt8": quantized(8),
    "LinearQ4": quantized(4),
    "MeanPoolNormalize": mean_pool_normalize,
    "HostToDevice": to_device,
    "DeviceToHost": lambda x: lambda: numpy.array(x),
}
DETAILS = {
    "Scatter": "the last write to each row is found first: MLX promises no order",
    "LinearInt8": f"a scale and an offset for each {GROUP} inputs",
    "LinearQ4": f"a scale and an offset for each {GROUP} inputs",
    "RaggedAttention": "one call for each sequence where lengths differ",
}
