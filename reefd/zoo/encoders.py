# SPDX-License-Identifier: Apache-2.0
"""Transformer encoders over word pieces, as exporters write them: separate nodes for everything a compiler should
fuse."""

import numpy as np

from reefd.zoo.net import Net

WORDS, PLACES, WIDTH, HEADS, INNER, LENGTH = 30522, 512, 768, 12, 3072, 128


def bert_base(net: Net) -> None:
    words = net.tokens("input_ids", LENGTH)
    segments = net.tokens("token_type_ids", LENGTH)
    x = _embedded(net, words)
    x = net.add(x, net.node("Gather", [net.weight("segments", [2, WIDTH], 0.02), segments]))
    x = _layers(net, _norm(net, x), 12, net.tokens("attention_mask", LENGTH))
    first = net.node("Gather", [x, net.constant(np.array(0, np.int64))], axis=1)
    pooled = net.node("Tanh", [_linear(net, first, WIDTH, WIDTH)])
    net.returns(x, [net.batch, LENGTH, WIDTH], "last_hidden_state")
    net.returns(pooled, [net.batch, WIDTH], "pooler_output")


def distilbert(net: Net) -> None:
    x = _norm(net, _embedded(net, net.tokens("input_ids", LENGTH)))
    net.returns(
        _layers(net, x, 6, net.tokens("attention_mask", LENGTH)), [net.batch, LENGTH, WIDTH], "last_hidden_state"
    )


def _embedded(net: Net, words: str) -> str:
    x = net.node("Gather", [net.weight("words", [WORDS, WIDTH], 0.02), words])
    places = net.weight("places", [PLACES, WIDTH], 0.02)
    used = net.node("Slice", [places, net.ints(0), net.ints(LENGTH), net.ints(0)])
    return net.add(x, used)


def _norm(net: Net, x: str) -> str:
    name = net.fresh("layer_norm")
    operands = [x, net.weight(f"{name}.scale", [WIDTH], 0.05, 1.0), net.weight(f"{name}.offset", [WIDTH], 0.05)]
    return net.node("LayerNormalization", operands, name, axis=-1, epsilon=1e-12)


def _linear(net: Net, x: str, inputs: int, outputs: int) -> str:
    name = net.fresh("linear")
    product = net.node("MatMul", [x, net.weight(f"{name}.w", [inputs, outputs], inputs**-0.5)])
    return net.add(product, net.weight(f"{name}.b", [outputs], 0.02))


def _layers(net: Net, x: str, count: int, mask: str) -> str:
    # 0 where a token counts, far below any score where it does not.
    counts = net.node("Unsqueeze", [net.node("Cast", [mask], to=1), net.ints(1, 2)])
    hidden = net.node("Mul", [net.node("Sub", [net.scalar(1.0), counts]), net.scalar(-10000.0)])
    for _ in range(count):
        x = _norm(net, net.add(_attention(net, x, hidden), x))
        inner = _gelu(net, _linear(net, x, WIDTH, INNER))
        x = _norm(net, net.add(_linear(net, inner, INNER, WIDTH), x))
    return x


def _attention(net: Net, x: str, hidden: str) -> str:
    split, joined = net.ints(net.batch, LENGTH, HEADS, WIDTH // HEADS), net.ints(net.batch, LENGTH, WIDTH)
    heads = [net.node("Reshape", [_linear(net, x, WIDTH, WIDTH), split]) for _ in range(3)]
    query = net.node("Transpose", [heads[0]], perm=[0, 2, 1, 3])
    key = net.node("Transpose", [heads[1]], perm=[0, 2, 3, 1])
    value = net.node("Transpose", [heads[2]], perm=[0, 2, 1, 3])
    scores = net.node("Div", [net.node("MatMul", [query, key]), net.scalar((WIDTH / HEADS) ** 0.5)])
    shares = net.node("Softmax", [net.add(scores, hidden)], axis=-1)
    mixed = net.node("Transpose", [net.node("MatMul", [shares, value])], perm=[0, 2, 1, 3])
    return _linear(net, net.node("Reshape", [mixed, joined]), WIDTH, WIDTH)


def _gelu(net: Net, x: str) -> str:
    erf = net.node("Erf", [net.node("Div", [x, net.scalar(2**0.5)])])
    return net.node("Mul", [net.node("Mul", [x, net.add(erf, net.scalar(1.0))]), net.scalar(0.5)])
