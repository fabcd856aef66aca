"""Writes small .onnx models, the seeds of the fuzz target `onnx` and of the mutation test: python make_onnx_seeds.py FOLDER."""

import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

folder = sys.argv[1]
random = np.random.default_rng(1)


def write(name, nodes, constants, shape, out):
    values = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        values,
    )
    domains = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    save(helper.make_model(graph, opset_imports=domains, ir_version=8), f"{folder}/{name}.onnx")


def f(*dims):
    return random.normal(size=dims).astype(np.float32)


def q(*dims):
    return random.integers(-127, 128, dims).astype(np.int8)


node = helper.make_node
write(
    "float",
    [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", ["c", "g", "g", "g", "v"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "d", "e"], ["s"], transB=1),
        node("Softmax", ["s"], ["y"], axis=-1),
    ],
    {"w": f(3, 2, 3, 3), "b": f(3), "g": f(3), "v": np.ones(3, np.float32), "d": f(4, 12), "e": f(4)},
    ["N", 2, 8, 8],
    ["N", 4],
)
write(
    "moves",
    [
        node("Split", ["x"], ["a", "b"], axis=1),
        node("ConvTranspose", ["a", "w"], ["t"], strides=[2, 2], group=2),
        node("Slice", ["t", "zero", "six", "axis"], ["l"]),
        node("Transpose", ["b"], ["u"], perm=[0, 2, 3, 1]),
        node("Shape", ["u"], ["h"]),
        node("Gather", ["h", "zero"], ["i"]),
        node("Concat", ["i", "rest"], ["j"], axis=0),
        node("Reshape", ["u", "j"], ["k"]),
        node("HardSwish", ["l"], ["m"]),
        node("ReduceMean", ["m"], ["o"], axes=[2, 3], keepdims=0),
        node("MatMul", ["k", "z"], ["q"]),
        node("Concat", ["o", "q"], ["r"], axis=1),
        node("LogSoftmax", ["r"], ["y"]),
    ],
    {
        "w": f(2, 2, 2, 2),
        "zero": np.array([0]),
        "six": np.array([6]),
        "axis": np.array([2]),
        "rest": np.array([-1]),
        "z": f(32, 3),
    },
    [1, 4, 4, 4],
    [1, 7],
)
scale = {"s": np.float32(0.05), "z": np.int8(3), "sw": f(3) ** 2 + np.float32(0.001), "zw": np.zeros(3, np.int8)}
write(
    "qdq",
    [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["w", "sw", "zw"], ["wd"], axis=0),
        node("Conv", ["xd", "wd"], ["c"], group=1),
        node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
        node("DequantizeLinear", ["cq", "s", "z"], ["cd"]),
        node("Add", ["cd", "cd"], ["a"]),
        node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        node("DequantizeLinear", ["aq", "s", "z"], ["ad"]),
        node("GlobalAveragePool", ["ad"], ["p"]),
        node("QuantizeLinear", ["p", "s2", "z"], ["pq"]),
        node("DequantizeLinear", ["pq", "s2", "z"], ["pd"]),
        node("Flatten", ["pd"], ["y"]),
    ],
    {**scale, "s2": np.float32(0.02), "w": q(3, 2, 2, 2)},
    ["N", 2, 4, 4],
    ["N", 3],
)
write(
    "qoperator",
    [
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("QLinearConv", ["xq", "s", "z", "w", "sw", "zw", "s", "z", "b"], ["c"]),
        node("MaxPool", ["c"], ["p"], kernel_shape=[2, 2]),
        node("Reshape", ["p", "flat"], ["f"]),
        node("QGemm", ["f", "s", "z", "d", "s", "zd", "e", "s", "z"], ["g"], domain="com.microsoft", transB=1),
        node("DequantizeLinear", ["g", "s", "z"], ["y"]),
    ],
    {
        **scale,
        "z": np.uint8(120),
        "w": q(3, 2, 2, 2),
        "b": np.array([5, -7, 100], np.int32),
        "flat": np.array([-1, 12]),
        "d": q(2, 12),
        "zd": np.int8(0),
        "e": np.array([1, 2], np.int32),
    },
    ["N", 2, 4, 4],
    ["N", 2],
)
