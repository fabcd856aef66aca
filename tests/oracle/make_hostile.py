"""Small .tflite files that are well-formed flatbuffers and make no sense.

    ORACLE/bin/python tests/oracle/make_hostile.py tests/golden/hostile
"""

import pathlib
import sys

import flatbuffers
import numpy as np
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as fb

KIND, OP = fb.TensorType, fb.BuiltinOperator


def tensor(graph, model, shape, kind=KIND.INT8, scale=0.1, data=None):
    t = fb.TensorT()
    t.shape, t.type, t.buffer, t.name = list(shape), kind, 0, f"t{len(graph.tensors)}"
    t.quantization = fb.QuantizationParametersT()
    t.quantization.scale, t.quantization.zeroPoint = [scale], [0]
    if data is not None:
        buffer = fb.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        model.buffers.append(buffer)
        t.buffer = len(model.buffers) - 1
    graph.tensors.append(t)


def base():
    """x -> LEAKY_RELU -> a -> FULLY_CONNECTED -> b -> LEAKY_RELU -> y: tensors 0 (x), 1 (a), 2 (w), 3 (bias), 4 (b), 5 (y)."""
    m, g = fb.ModelT(), fb.SubGraphT()
    m.version, m.buffers, m.subgraphs = 3, [fb.BufferT()], [g]
    g.tensors, g.inputs, g.outputs = [], [0], [5]
    tensor(g, m, [1, 4])
    tensor(g, m, [1, 4])
    tensor(g, m, [4, 4], data=np.arange(16, dtype=np.int8))
    tensor(g, m, [4], KIND.INT32, 0.01, np.arange(4, dtype=np.int32))
    tensor(g, m, [1, 4])
    tensor(g, m, [1, 4])
    m.operatorCodes, g.operators = [], []
    for code in (OP.LEAKY_RELU, OP.FULLY_CONNECTED):
        c = fb.OperatorCodeT()
        c.builtinCode, c.deprecatedBuiltinCode, c.version = code, code, 1
        m.operatorCodes.append(c)
    for code, inputs, output in ((0, [0], 1), (1, [1, 2, 3], 4), (0, [4], 5)):
        o = fb.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = code, inputs, [output]
        o.builtinOptionsType = (fb.BuiltinOptions.LeakyReluOptions, fb.BuiltinOptions.FullyConnectedOptions)[code]
        o.builtinOptions = (fb.LeakyReluOptionsT, fb.FullyConnectedOptionsT)[code]()
        if code == 0:
            o.builtinOptions.alpha = 0.1
        g.operators.append(o)
    return m, g


def cycle(m, g):
    g.operators[0].inputs = [4]


def own_output(m, g):
    g.operators[1].inputs = [4, 2, 3]


def later_first(m, g):
    g.operators.reverse()


def output_twice(m, g):
    g.operators[2].outputs = [1]


def writes_input(m, g):
    g.operators[0].outputs = [0]


def writes_constant(m, g):
    g.operators[0].outputs = [2]


def no_such_tensor(m, g):
    g.operators[1].inputs = [1, 99, 3]


def negative_tensor(m, g):
    g.operators[0].inputs = [-7]


def no_such_operator(m, g):
    g.operators[1].opcodeIndex = 77


def no_such_buffer(m, g):
    g.tensors[2].buffer = 1 << 31


def shape_overflows(m, g):
    for t in (0, 1):
        g.tensors[t].shape = [65536, 65536, 65536, 65536]


def shape_wraps_to_fit(m, g):
    g.tensors[2].shape = [1 << 16, 1 << 16, 4, 4]


def huge_activation(m, g):
    for t in (0, 1, 4, 5):
        g.tensors[t].shape = [1, 2**31 - 1]


def negative_shape(m, g):
    g.tensors[0].shape = [-1, 4]


def zero_shape(m, g):
    g.tensors[1].shape = [1, 0]


def many_axes(m, g):
    g.tensors[0].shape = [1] * 300 + [4]


def buffer_too_short(m, g):
    g.tensors[2].shape = [4, 400]


def scale_is_nan(m, g):
    g.tensors[4].quantization.scale = [float("nan")]


def scale_is_zero(m, g):
    g.tensors[0].quantization.scale = [0.0]


def scales_by_the_hundred(m, g):
    g.tensors[2].quantization.scale, g.tensors[2].quantization.zeroPoint = [0.1] * 400, [0] * 400


def zero_point_out_of_range(m, g):
    g.tensors[0].quantization.zeroPoint = [2**40]


def same_constant_many_times(m, g):
    """One buffer of 16 KiB that 90 dense layers read: the file is small, what it describes is not."""
    m.buffers[1].data = np.zeros(1 << 14, np.uint8)
    g.tensors[2].shape, g.tensors[3].shape = [128, 128], [128]
    m.buffers[2].data = np.zeros(512, np.uint8)
    for t in (0, 1, 4, 5):
        g.tensors[t].shape = [1, 128]
    last = 4
    for _ in range(90):
        weights = len(g.tensors)
        tensor(g, m, [128, 128])
        g.tensors[weights].buffer = 1
        tensor(g, m, [1, 128])
        o = fb.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = 1, [last, weights, 3], [weights + 1]
        o.builtinOptionsType, o.builtinOptions = fb.BuiltinOptions.FullyConnectedOptions, fb.FullyConnectedOptionsT()
        g.operators.insert(-1, o)
        last = weights + 1
    g.operators[-1].inputs = [last]


def two_inputs(m, g):
    g.inputs = [0, 1]


def no_outputs(m, g):
    g.outputs = []


def input_is_output_is_constant(m, g):
    g.inputs, g.outputs = [2], [2]


def no_subgraph(m, g):
    m.subgraphs = []


CASES = [
    cycle, own_output, later_first, output_twice, writes_input, writes_constant, no_such_tensor, negative_tensor, no_such_operator,
    no_such_buffer, shape_overflows, shape_wraps_to_fit, huge_activation, negative_shape, zero_shape, many_axes, buffer_too_short,
    scale_is_nan, scale_is_zero, scales_by_the_hundred, zero_point_out_of_range, same_constant_many_times, two_inputs, no_outputs,
    input_is_output_is_constant, no_subgraph,
]  # fmt: skip

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for change in [None, *CASES]:
    model, graph = base()
    if change:
        change(model, graph)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    name = change.__name__ if change else "valid"
    (folder / f"{name}.tflite").write_bytes(bytes(builder.Output()))
