"""Small cases of every operation, with what ../OPERATIONS.md says of each computed by numpy in float64: what check.py compares workers with.

Not the study's cases (../operations.json): those are large, and their reference is the Rust one.
"""

import math

import numpy as np

RANDOM = np.random.default_rng(7)
erf = np.vectorize(math.erf)


def normal(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def index(count, *shape):
    return RANDOM.integers(0, count, shape).astype(np.int32)


def integers(*values):
    return np.array(values, np.int32)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def attention(q, k, v, seen):
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    return softmax(np.where(seen, scores, -np.inf)) @ v


def normalized(x, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def gelu(x):
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def convolution(x, w):
    """Any number of dimensions between the first and the channels, which come last."""
    kernel = w.shape[1:-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel, tuple(range(1, x.ndim - 1)))
    # [N, positions.., C, kernel..] with [O, kernel.., C]
    windows = np.moveaxis(windows, len(kernel) + 1, -1)
    axes = list(range(1, len(kernel) + 2))
    return np.tensordot(windows, w, (list(range(windows.ndim - len(axes), windows.ndim)), axes))


def scatter(x, source, target, combine):
    result = np.zeros_like(x)
    for s, t in zip(source, target):
        result[t] = combine(result[t], x[s])
    return result


def self_attention(q, k, v, lengths):
    seen = np.arange(q.shape[2]) < lengths[:, None]
    return attention(q, k, v, seen[:, None, None, :]) * seen[:, None, :, None]


def ragged_attention(qkv, lengths, heads):
    result = []
    for rows in np.split(qkv, np.cumsum(lengths)[:-1]):
        q, k, v = (part.reshape(len(rows), heads, -1).swapaxes(0, 1) for part in np.split(rows, 3, 1))
        result.append(attention(q, k, v, True).swapaxes(0, 1).reshape(len(rows), -1))
    return np.concatenate(result)


def rope(x):
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[2])[:, None] * 10000.0 ** (-2 * np.arange(half) / x.shape[-1])
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * np.cos(angles) - b * np.sin(angles), b * np.cos(angles) + a * np.sin(angles)], -1)


def mean_pool_normalize(x, lengths):
    means = np.stack([rows.mean(0) for rows in np.split(x, np.cumsum(lengths)[:-1])])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def bce(p, y):
    return np.array([-(y * np.maximum(np.log(p), -100) + (1 - y) * np.maximum(np.log1p(-p), -100)).mean()])


def cases():
    """Name, inputs, axis, settings, and the expected result of each case. Inputs f32 or i32, results f64 or integers."""
    def case(name, inputs, function, axis=None, settings=None):
        wide = [i.astype(np.float64) if i.dtype == np.float32 else i for i in inputs]
        with np.errstate(divide="ignore"):
            return name, inputs, axis, settings, function(*wide)

    ties = RANDOM.integers(0, 3, (5, 6, 7)).astype(np.float32)  # D1: each axis gives another result
    for axis in (0, 1, 2, -1):
        yield case("Argmax", [ties], lambda x: x.argmax(axis), axis)
        yield case("Softmax", [normal(5, 6, 7)], lambda x: softmax(x, axis), axis)
        yield case("Sort", [normal(5, 6, 7)], lambda x: np.sort(x, axis), axis)
        yield case("Sum", [normal(5, 6, 7)], lambda x: x.sum(axis), axis)
    p, y = RANDOM.random((40, 3), np.float32), index(2, 40, 3).astype(np.float32)
    p[0], y[0] = (0, 1, 0), (1, 0, 0)  # D8: probabilities, logarithms no less than -100
    yield case("BCE", [p, y], bce)
    yield case("Concat", [normal(6, 4), normal(6, 3)], lambda a, b: np.concatenate([a, b], 1), 1)
    yield case("Concat", [normal(6, 4), normal(2, 4)], lambda a, b: np.concatenate([a, b], 0), 0)
    yield case("Conv1d", [normal(3, 20, 5), normal(4, 3, 5)], convolution)
    yield case("Conv2d", [normal(2, 12, 9, 3), normal(4, 3, 2, 3)], convolution)
    yield case("Gather", [normal(9, 4), index(9, 30)], lambda x, i: x[i])
    edges = [normal(40, 8), index(40, 25), index(40, 25)]  # some rows never hit, some more than once
    crowded = [normal(40, 8), index(40, 3000), index(40, 3000)]
    for inputs in (edges, crowded):
        yield case("Scatter", inputs, lambda *i: scatter(*i, lambda old, new: new))
        yield case("ScatterSum", inputs, lambda *i: scatter(*i, np.add))  # D9
        yield case("ScatterMax", inputs, lambda *i: scatter(*i, np.maximum))
    yield case("LayerNorm", [normal(4, 5, 32)], lambda x: normalized(x, 1e-5))
    yield case("LeakyReLU", [normal(50)], lambda x: np.where(x > 0, x, 0.01 * x))
    product = [normal(5, 7, 64), normal(64, 128), normal(128)]
    yield case("Linear", product, lambda x, w, b: x @ w + b)
    yield case("MatMul", [normal(5, 7, 8), normal(5, 8, 9)], np.matmul)
    yield case("MatMul", [normal(5, 7, 8), normal(8, 9)], np.matmul)
    yield case("MatMul", [normal(7, 8), normal(8, 9)], np.matmul)
    yield case("PReLU", [normal(50), normal(1)], lambda x, a: np.maximum(0, x) + a * np.minimum(0, x))
    yield case("ReLU", [normal(50)], lambda x: np.maximum(0, x))
    for keys in (6, 9):  # D10: a mask that hides, whether or not there are as many keys as queries
        inputs = [normal(2, 3, 6, 16), normal(2, 3, keys, 16), normal(2, 3, keys, 16)]
        yield case("ScaledDotProductAttention", inputs, lambda q, k, v: attention(q, k, v, np.tri(6, keys, dtype=bool)))
    yield case("SeLU", [normal(50)], lambda x: 1.0507009873554805 * (np.maximum(0, x) + np.minimum(0, 1.6732632423543772 * np.expm1(x))))
    yield case("Sigmoid", [normal(50)], lambda x: 1 / (1 + np.exp(-x)))
    yield case("Softplus", [40 * normal(50)], lambda x: np.logaddexp(0, x))
    yield case("SumAll", [normal(5, 60, 7)], lambda x: x.sum().reshape(1))
    yield case("Gelu", [normal(4, 50)], gelu)
    yield case("GeluTanh", [normal(4, 50)], lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    yield case("Embedding", [normal(9, 4), index(9, 30)], lambda x, i: x[i])
    yield case("AddLayerNorm", [normal(5, 32), normal(5, 32), normal(32), normal(32)],
               lambda x, r, g, s: normalized(x + r, 1e-12) * g + s)
    yield case("RMSNorm", [normal(5, 32), normal(32)], lambda x, g: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * g)
    yield case("RoPE", [normal(2, 3, 10, 8)], rope)
    flat = [normal(7, 64), normal(64, 128), normal(128)]
    yield case("LinearGelu", flat, lambda x, w, b: gelu(x @ w + b))
    yield case("PackedQKV", [normal(7, 64), normal(64, 192), normal(192)], lambda x, w, b: x @ w + b)
    yield case("LinearInt8", flat, lambda x, w, b: x @ w + b)
    yield case("LinearQ4", flat, lambda x, w, b: x @ w + b)
    for lengths in (integers(6, 6), integers(6, 2)):
        yield case("SelfAttention", [*(normal(2, 3, 6, 16) for _ in range(3)), lengths], self_attention)
        rows = int(lengths.sum())
        yield case("RaggedAttention", [normal(rows, 3 * 2 * 16), lengths], lambda x, n: ragged_attention(x, n, 2), settings={"heads": 2})
        yield case("MeanPoolNormalize", [normal(rows, 16), lengths], mean_pool_normalize)
    yield case("HostToDevice", [normal(5, 6)], lambda x: x)
    yield case("DeviceToHost", [normal(5, 6)], lambda x: x)
