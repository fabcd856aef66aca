"""Small .tflite models of one or two operators, and what TFLite Micro answers.

    ORACLE/bin/python tests/oracle/make_cases.py tests/golden/tflite

For each case NAME.tflite, NAME.in (16 samples) and NAME.out. These are forms that no model of the shared folder has.
"""

import pathlib
import sys

import flatbuffers
import numpy as np
from tflite_micro.python.tflite_micro import runtime
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as fb

rng = np.random.default_rng(20261122)
OP, KIND = fb.BuiltinOperator, fb.TensorType
NUMPY = {KIND.INT16: np.int16, KIND.INT8: np.int8, KIND.UINT8: np.uint8, KIND.INT32: np.int32, KIND.FLOAT32: np.float32}


class LiteRt:
    """For uint8, of which TFLite Micro knows little: elements that only move are the same everywhere."""

    def __init__(self, model):
        from ai_edge_litert.interpreter import Interpreter

        self.own = Interpreter(model_content=model)
        self.own.allocate_tensors()

    def set_input(self, sample, _):
        self.own.set_tensor(self.own.get_input_details()[0]["index"], sample)

    def invoke(self):
        self.own.invoke()

    def get_output(self, _):
        return self.own.get_tensor(self.own.get_output_details()[0]["index"])


class Case:
    def __init__(self):
        self.model, self.graph = fb.ModelT(), fb.SubGraphT()
        self.model.version, self.model.buffers = 3, [fb.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape, kind=KIND.INT8, scale=None, zero=0, data=None, variable=False):
        t = fb.TensorT()
        t.isVariable = variable
        t.shape, t.type, t.buffer, t.name = list(shape), kind, 0, f"t{len(self.graph.tensors)}"
        if scale is not None:
            scales = np.atleast_1d(np.float32(scale)).tolist()
            t.quantization = fb.QuantizationParametersT()
            t.quantization.scale, t.quantization.zeroPoint = scales, [zero] * len(scales)
        if data is not None:
            buffer = fb.BufferT()
            buffer.data = np.frombuffer(np.asarray(data, NUMPY[kind]).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            t.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(t)
        return len(self.graph.tensors) - 1

    def ints(self, values):
        return self.tensor(np.shape(values), KIND.INT32, data=values)

    def op(self, code, inputs, output, options=None, **fields):
        """`output`: one tensor, or several."""
        c = fb.OperatorCodeT()
        c.builtinCode, c.deprecatedBuiltinCode, c.version = code, min(code, 127), 1
        self.model.operatorCodes.append(c)
        o = fb.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = len(self.model.operatorCodes) - 1, inputs, np.atleast_1d(np.asarray(output, np.int32)).tolist()
        if options:
            o.builtinOptionsType = getattr(fb.BuiltinOptions, options)
            o.builtinOptions = getattr(fb, options + "T")()
            for name, value in fields.items():
                assert hasattr(o.builtinOptions, name), name
                setattr(o.builtinOptions, name, value)
        self.graph.operators.append(o)

    def pack(self, x, y):
        self.graph.inputs, self.graph.outputs = [x], [y]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def write(self, folder, name, x, y):
        model = self.pack(x, y)
        if name == "uint8_in_moves":
            interpreter = LiteRt(model)
        else:
            interpreter = runtime.Interpreter.from_bytes(model, arena_size=1 << 18)
        t = self.graph.tensors[x]
        if t.type == KIND.FLOAT32:
            samples = rng.normal(0, 1, [16, *t.shape]).astype(np.float32)
        else:
            info = np.iinfo(NUMPY[t.type])
            samples = rng.integers(info.min, info.max + 1, [16, *t.shape]).astype(NUMPY[t.type])
        answers = []
        for sample in samples:
            interpreter.set_input(sample, 0)
            interpreter.invoke()
            answers.append(np.array(interpreter.get_output(0)))
        (folder / f"{name}.tflite").write_bytes(model)
        (folder / f"{name}.in").write_bytes(samples.tobytes())
        (folder / f"{name}.out").write_bytes(np.stack(answers).tobytes())


def mean(shape, axes, out, scales, zeros):
    c = Case()
    x = c.tensor(shape, scale=scales[0], zero=zeros[0])
    y = c.tensor(out, scale=scales[1], zero=zeros[1])
    c.op(OP.MEAN, [x, c.ints(axes)], y, "ReducerOptions", keepDims=len(out) == len(shape))
    return c, x, y


def slice_(shape, begin, end, strides, out, begin_mask=0, end_mask=0, shrink=0):
    c = Case()
    x, y = c.tensor(shape, scale=0.1, zero=-4), c.tensor(out, scale=0.1, zero=-4)
    c.op(OP.STRIDED_SLICE, [x, c.ints(begin), c.ints(end), c.ints(strides)], y, "StridedSliceOptions", beginMask=begin_mask, endMask=end_mask, shrinkAxisMask=shrink)
    return c, x, y


def dense(c, x, inputs, outputs, bias=True, output_shape=None, keep=False):
    """A dense layer behind the int8 tensor x of scale 0.05."""
    w = c.tensor([outputs, inputs], scale=0.02, data=rng.integers(-127, 128, [outputs, inputs]))
    b = c.tensor([outputs], KIND.INT32, scale=np.float32(0.05) * np.float32(0.02), data=rng.integers(-999, 1000, [outputs])) if bias else -1
    y = c.tensor(output_shape or [1, outputs], scale=0.3, zero=7)
    c.op(OP.FULLY_CONNECTED, [x, w, b], y, "FullyConnectedOptions", keepNumDims=keep)
    return y


def transposed(shape, axes):
    c = Case()
    x = c.tensor(shape, scale=0.05, zero=3)
    out = [shape[a] for a in axes]
    t = c.tensor(out, scale=0.05, zero=3)
    c.op(OP.TRANSPOSE, [x, c.ints(axes)], t, "TransposeOptions")
    size = int(np.prod(shape))
    r = c.tensor([1, size], scale=0.05, zero=3)
    c.op(OP.RESHAPE, [t, c.ints([1, size])], r, "ReshapeOptions")
    return c, x, dense(c, r, size, 5)


def shapes():
    c = Case()
    x = c.tensor([1, 6], scale=0.05, zero=3)
    e = c.tensor([1, 1, 6], scale=0.05, zero=3)
    c.op(OP.EXPAND_DIMS, [x, c.ints(1)], e, "ExpandDimsOptions")
    s = c.tensor([1, 6], scale=0.05, zero=3)
    c.op(OP.SQUEEZE, [e], s, "SqueezeOptions", squeezeDims=[1])
    return c, x, dense(c, s, 6, 4, bias=False)


def rows():
    c = Case()
    x = c.tensor([1, 5, 6], scale=0.05, zero=3)
    return c, x, dense(c, x, 6, 4, output_shape=[1, 5, 4], keep=True)


def ends(x_zero, w_grid, y_zero):
    """uint8 in, int8 within, uint8 out."""
    c = Case()
    x = c.tensor([1, 6], KIND.UINT8, scale=0.05, zero=x_zero)
    q = c.tensor([1, 6], scale=w_grid[0], zero=w_grid[1])
    c.op(OP.QUANTIZE, [x], q, "QuantizeOptions")
    r = c.tensor([1, 6], scale=0.05, zero=-20)
    c.op(OP.QUANTIZE, [q], r, "QuantizeOptions")
    y = dense(c, r, 6, 4)
    z = c.tensor([1, 4], KIND.UINT8 if y_zero is not None else KIND.FLOAT32, scale=0.3 if y_zero is not None else None, zero=y_zero or 0)
    c.op(OP.QUANTIZE if y_zero is not None else OP.DEQUANTIZE, [y], z)
    return c, x, z


def joined(count):
    c = Case()
    x = c.tensor([1, 2, 2, 3], scale=0.1, zero=1)
    y = c.tensor([1, 2, 2, 3 * count], scale=0.1, zero=1)
    c.op(OP.CONCATENATION, [x] * count, y, "ConcatenationOptions", axis=-1)
    return c, x, y


def leaky():
    c = Case()
    x, y = c.tensor([1, 40], scale=0.1, zero=-9), c.tensor([1, 40], scale=0.07, zero=12)
    c.op(OP.LEAKY_RELU, [x], y, "LeakyReluOptions", alpha=0.15)
    return c, x, y


def broadcast(code, options):
    c = Case()
    x, y = c.tensor([1, 3, 3, 4], scale=0.1, zero=-9), c.tensor([1, 3, 3, 4], scale=0.11, zero=5)
    k = c.tensor([4], scale=0.03, zero=2, data=rng.integers(-128, 128, [4]))
    c.op(code, [x, k], y, options, fusedActivationFunction=1)
    return c, x, y


def grid(shape, scale=0.1, zero=-4):
    c = Case()
    return c, c.tensor(shape, scale=scale, zero=zero)


def sliced(shape, begin, size, out):
    c, x = grid(shape)
    y = c.tensor(out, scale=0.1, zero=-4)
    c.op(OP.SLICE, [x, c.ints(begin), c.ints(size)], y, "SliceOptions")
    return c, x, y


def transpose_only(shape, axes):
    c, x = grid(shape)
    y = c.tensor([shape[a] for a in axes], scale=0.1, zero=-4)
    c.op(OP.TRANSPOSE, [x, c.ints(axes)], y, "TransposeOptions")
    return c, x, y


def reduce_max(shape, axes, out):
    c, x = grid(shape)
    y = c.tensor(out, scale=0.1, zero=-4)
    c.op(OP.REDUCE_MAX, [x, c.ints(axes)], y, "ReducerOptions", keepDims=len(out) == len(shape))
    return c, x, y


def split(code):
    """Three parts, of which the first and the last are joined."""
    c, x = grid([1, 4, 6])
    sizes = [2, 2, 2] if code == OP.SPLIT else [1, 2, 3]
    parts = [c.tensor([1, 4, s], scale=0.1, zero=-4) for s in sizes]
    if code == OP.SPLIT:
        c.op(code, [c.ints(2), x], parts, "SplitOptions", numSplits=3)
    else:
        c.op(code, [x, c.ints([1, 2, -1]), c.ints(2)], parts, "SplitVOptions", numSplits=3)
    y = c.tensor([1, 4, sizes[0] + sizes[2]], scale=0.1, zero=-4)
    c.op(OP.CONCATENATION, [parts[2], parts[0]], y, "ConcatenationOptions", axis=2)
    return c, x, y


def stacked():
    """Unpacked along one axis, packed along another."""
    c, x = grid([1, 3, 4])
    parts = [c.tensor([1, 4], scale=0.1, zero=-4) for _ in range(3)]
    c.op(OP.UNPACK, [x], parts, "UnpackOptions", axis=1, num=3)
    y = c.tensor([1, 4, 3], scale=0.1, zero=-4)
    c.op(OP.PACK, parts, y, "PackOptions", axis=2, valuesCount=3)
    return c, x, y


def shape_arithmetic():
    """The batch of the input is looked up, and its other axes joined: what Keras' Flatten becomes."""
    c, x = grid([1, 3, 4])
    s = c.tensor([3], KIND.INT32)
    c.op(OP.SHAPE, [x], s, "ShapeOptions", outType=KIND.INT32)
    n = c.tensor([], KIND.INT32)
    c.op(OP.STRIDED_SLICE, [s, c.ints([0]), c.ints([1]), c.ints([1])], n, "StridedSliceOptions", shrinkAxisMask=1)
    d = c.tensor([2], KIND.INT32)
    twelve = c.tensor([], KIND.INT32, data=12)
    c.op(OP.PACK, [n, twelve], d, "PackOptions", axis=0, valuesCount=2)
    y = c.tensor([1, 12], scale=0.1, zero=-4)
    c.op(OP.RESHAPE, [x, d], y, "ReshapeOptions")
    return c, x, y


def log_softmax(scale):
    c, x = grid([3, 11], scale, 5)
    y = c.tensor([3, 11], scale=16 / 256, zero=127)
    c.op(OP.LOG_SOFTMAX, [x], y, "LogSoftmaxOptions")
    return c, x, y


def lstm(steps, inputs, units, cell=2**-12, clip=10.0, hidden=(0.0078, 0), time_major=False):
    c, x = grid([steps, 1, inputs] if time_major else [1, steps, inputs], 0.02, 3)

    def weights(rows, columns):
        scale = float(rng.uniform(0.004, 0.012))
        return c.tensor([rows, columns], scale=scale, data=rng.integers(-127, 128, [rows, columns]))

    w = [weights(units, inputs) for _ in range(4)]
    r = [weights(units, units) for _ in range(4)]
    b = [c.tensor([units], KIND.INT32, scale=1e-4, data=rng.integers(-9999, 9999, [units])) for _ in range(4)]
    h = c.tensor([1, units], scale=hidden[0], zero=hidden[1], variable=True)
    s = c.tensor([1, units], KIND.INT16, scale=cell, variable=True)
    y = c.tensor([steps, 1, units] if time_major else [1, steps, units], scale=hidden[0], zero=hidden[1])
    operands = [x, *w, *r, -1, -1, -1, *b, -1, -1, h, s, -1, -1, -1, -1]
    c.op(OP.UNIDIRECTIONAL_SEQUENCE_LSTM, operands, y, "UnidirectionalSequenceLSTMOptions",
         fusedActivationFunction=4, cellClip=clip, timeMajor=time_major)
    return c, x, y


def svdf(kind, inputs, units, rank, memory):
    c, x = grid([1, inputs], 0.05, -7)
    filters = units * rank
    w = c.tensor([filters, inputs], scale=0.009, data=rng.integers(-127, 128, [filters, inputs]))
    if kind == KIND.INT16:
        time = rng.integers(-32000, 32000, [filters, memory])
        state, scale, zero, top = 0.0044, 0.0000371, 0, 1
    else:
        time = rng.integers(-127, 128, [filters, memory])
        state, scale, zero, top = 0.4, 0.0149, -21, 1
    t = c.tensor([filters, memory], kind, scale=scale, data=time)
    b = c.tensor([units], KIND.INT32, scale=float(np.float32(state) * np.float32(scale)), data=rng.integers(-999, 999, [units]))
    s = c.tensor([1, memory * filters], kind, scale=state, zero=zero, variable=True)
    y = c.tensor([1, units], scale=0.15 * top, zero=11)
    c.op(OP.SVDF, [x, w, t, b, s], y, "SVDFOptions", rank=rank, fusedActivationFunction=0)
    return c, x, y


def streaming(first):
    """A ring of the last three frames: read, joined with the new one, the newest remembered; a mean over all."""
    c, x = grid([1, 1, 4])
    if first:
        other = fb.SubGraphT()
        other.tensors, other.operators, other.inputs, other.outputs = [], [], [], []
        main, c.graph = c.graph, other
        handle = c.tensor([], KIND.RESOURCE)
        c.op(OP.VAR_HANDLE, [], handle, "VarHandleOptions", container="", sharedName="frames")
        value = c.tensor([1, 3, 4], scale=0.1, zero=-4, data=rng.integers(-128, 128, [1, 3, 4]))
        c.op(OP.ASSIGN_VARIABLE, [handle, value], [], "AssignVariableOptions")
        c.graph = main
        c.model.subgraphs.append(other)
        c.op(OP.CALL_ONCE, [], [], "CallOnceOptions", initSubgraphIndex=1)
    handle = c.tensor([], KIND.RESOURCE)
    c.op(OP.VAR_HANDLE, [], handle, "VarHandleOptions", container="", sharedName="frames")
    old = c.tensor([1, 3, 4], scale=0.1, zero=-4)
    c.op(OP.READ_VARIABLE, [handle], old, "ReadVariableOptions")
    every = c.tensor([1, 4, 4], scale=0.1, zero=-4)
    c.op(OP.CONCATENATION, [old, x], every, "ConcatenationOptions", axis=1)
    new = c.tensor([1, 3, 4], scale=0.1, zero=-4)
    c.op(OP.STRIDED_SLICE, [every, c.ints([0, 1, 0]), c.ints([1, 4, 4]), c.ints([1, 1, 1])], new, "StridedSliceOptions")
    c.op(OP.ASSIGN_VARIABLE, [handle, new], [], "AssignVariableOptions")
    y = c.tensor([1, 4], scale=0.06, zero=9)
    c.op(OP.MEAN, [every, c.ints([1])], y, "ReducerOptions")
    return c, x, y


def element(code, scale, zero, options=None):
    c, x = grid([1, 60], 0.06, -9)
    y = c.tensor([1, 60], scale=scale, zero=zero)
    c.op(code, [x], y, options)
    return c, x, y


def padded():
    c, x = grid([1, 3, 4])
    y = c.tensor([1, 6, 5], scale=0.1, zero=-4)
    c.op(OP.PADV2, [x, c.ints([[0, 0], [1, 2], [1, 0]]), c.tensor([1], scale=0.1, zero=-4, data=[-4])], y, "PadV2Options")
    return c, x, y


def max_pool(kind):
    c = Case()
    zero = 100 if kind == KIND.UINT8 else -28
    x, y = c.tensor([1, 5, 6, 3], kind, scale=0.1, zero=zero), c.tensor([1, 3, 3, 3], kind, scale=0.1, zero=zero)
    c.op(OP.MAX_POOL_2D, [x], y, "Pool2DOptions", filterHeight=2, filterWidth=2, strideH=2, strideW=2, padding=0)
    return c, x, y


def uint8_moves():
    """Elements that move as uint8, and are int8 at the end."""
    c = Case()
    on = {"scale": 0.1, "zero": 101}
    x = c.tensor([1, 4, 6], KIND.UINT8, **on)
    s = c.tensor([1, 2, 6], KIND.UINT8, **on)
    c.op(OP.STRIDED_SLICE, [x, c.ints([0, 1, 0]), c.ints([1, 3, 6]), c.ints([1, 1, 1])], s, "StridedSliceOptions")
    j = c.tensor([1, 6, 6], KIND.UINT8, **on)
    c.op(OP.CONCATENATION, [s, x], j, "ConcatenationOptions", axis=1)
    r = c.tensor([1, 36], KIND.UINT8, **on)
    c.op(OP.RESHAPE, [j, c.ints([1, 36])], r, "ReshapeOptions")
    y = c.tensor([1, 36], scale=0.12, zero=3)
    c.op(OP.QUANTIZE, [r], y, "QuantizeOptions")
    return c, x, y


def missing():
    """Operators that nobody here has; TFLite Micro does not run it either."""
    c, x = grid([1, 4])
    a = c.tensor([1, 4], scale=0.1, zero=-4)
    c.op(OP.REVERSE_SEQUENCE, [x], a)
    b = c.tensor([1, 4], scale=0.1, zero=-4)
    c.op(OP.RELU_N1_TO_1, [a], b)
    y = c.tensor([1, 4], scale=0.1, zero=-4)
    c.op(OP.REVERSE_SEQUENCE, [b], y)
    return c, x, y


CASES = {
    "mean_7x7": lambda: mean([1, 7, 7, 5], [1, 2], [1, 5], (0.05, 0.02), (-128, 3)),
    "mean_3x5_kept": lambda: mean([1, 3, 5, 4], [2, 1], [1, 1, 1, 4], (0.05, 0.061), (9, -77)),
    "mean_rows": lambda: mean([1, 6, 4], [1], [1, 4], (0.05, 0.03), (0, 0)),
    "mean_channels": lambda: mean([1, 6, 7], [-1], [1, 6], (0.05, 0.03), (4, -3)),
    "slice_channels": lambda: slice_([1, 4, 4, 8], [0, 0, 0, 2], [0, 0, 0, 7], [1, 1, 1, 1], [1, 4, 4, 5], 7, 7),
    "slice_strides": lambda: slice_([1, 5, 6, 3], [0, 0, 0, 0], [1, 5, 6, 3], [1, 2, 3, 1], [1, 3, 2, 3]),
    "slice_both": lambda: slice_([1, 5, 6, 3], [0, 0, 0, -2], [1, 5, 6, 3], [1, 2, 2, 1], [1, 3, 3, 2]),
    "transpose_3": lambda: transposed([1, 3, 4], [0, 2, 1]),
    "transpose_4": lambda: transposed([1, 3, 4, 2], [0, 3, 1, 2]),
    "transpose_ones": lambda: transposed([1, 3, 1, 4], [0, 2, 1, 3]),
    "mean_same_grid": lambda: mean([1, 3, 5, 4], [1, 2], [1, 4], (0.05, 0.05), (7, 7)),
    "mean_apart": lambda: mean([1, 3, 5, 4], [1, 3], [1, 5], (0.05, 0.03), (7, -9)),
    "mean_apart_same_grid": lambda: mean([2, 3, 5, 4], [0, 2], [1, 3, 1, 4], (0.05, 0.05), (-3, -3)),
    "slice_backwards": lambda: slice_([1, 5, 6, 3], [0, 3, -1, 0], [1, -9, 0, 3], [1, -1, -2, 1], [1, 4, 3, 3]),
    "slice_inside": lambda: slice_([1, 5, 6, 3], [0, 1, 2, 0], [1, 4, 9, 2], [1, 1, 3, 1], [1, 3, 2, 2]),
    "slice_shrunk": lambda: slice_([1, 5, 6], [0, -2, 0], [1, 0, 6], [1, 1, 1], [1, 6], 1, 5, 2),
    "slice_sizes": lambda: sliced([1, 5, 6, 3], [0, 1, 2, 0], [1, 3, -1, 2], [1, 3, 4, 2]),
    "transpose_output": lambda: transpose_only([1, 3, 4, 2], [0, 2, 3, 1]),
    "transpose_batch": lambda: transpose_only([2, 3, 5], [2, 0, 1]),
    "reduce_max": lambda: reduce_max([1, 4, 5, 3], [1, 2], [1, 3]),
    "reduce_max_apart": lambda: reduce_max([1, 4, 5, 3], [1, -1], [1, 1, 5, 1]),
    "relu": lambda: element(OP.RELU, 0.05, -3),
    "relu6": lambda: element(OP.RELU6, 0.06, -9),
    "tanh": lambda: element(OP.TANH, 1 / 128, 0),
    "logistic": lambda: element(OP.LOGISTIC, 1 / 256, -128),
    "pad_v2": padded,
    "max_pool": lambda: max_pool(KIND.INT8),
    "uint8_in_moves": uint8_moves,
    "split": lambda: split(OP.SPLIT),
    "split_v": lambda: split(OP.SPLIT_V),
    "unpack_pack": stacked,
    "shape_arithmetic": shape_arithmetic,
    "log_softmax": lambda: log_softmax(0.05),
    "log_softmax_wide": lambda: log_softmax(0.6),
    "lstm": lambda: lstm(7, 5, 6),
    "lstm_zero_point": lambda: lstm(4, 9, 3, cell=2**-11, clip=0.0, hidden=(0.0083, -6)),
    "lstm_time_major": lambda: lstm(3, 4, 8, cell=2**-14, clip=1.0, time_major=True),
    "svdf_16": lambda: svdf(KIND.INT16, 9, 5, 2, 4),
    "svdf_8": lambda: svdf(KIND.INT8, 6, 7, 1, 5),
    "streaming": lambda: streaming(False),
    "streaming_first": lambda: streaming(True),
    "shapes_no_bias": shapes,
    "dense_rows": rows,
    "uint8_same_grid": lambda: ends(100, (0.05, -28), 135),
    "uint8_other_grid": lambda: ends(7, (0.06, 11), 200),
    "uint8_in_float_out": lambda: ends(128, (0.05, 0), None),
    "concat_10": lambda: joined(10),
    "leaky_relu": leaky,
    "add_broadcast": lambda: broadcast(OP.ADD, "AddOptions"),
    "mul_broadcast": lambda: broadcast(OP.MUL, "MulOptions"),
}

folder = pathlib.Path(sys.argv[1])
# every case has its own random numbers, so that one more changes no other
wanted = sys.argv[2:]
folder.mkdir(parents=True, exist_ok=True)
for name, make in CASES.items():
    if wanted and name not in wanted:
        continue
    rng = np.random.default_rng([20261122, *name.encode()])
    case, x, y = make()
    try:
        case.write(folder, name, x, y)
    except RuntimeError as error:
        print(f"{name}: TFLite Micro does not run it ({error})", file=sys.stderr)
case, x, y = missing()
(folder.parent / "missing.tflite").write_bytes(case.pack(x, y))
