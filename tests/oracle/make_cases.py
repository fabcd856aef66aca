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
NUMPY = {KIND.INT8: np.int8, KIND.UINT8: np.uint8, KIND.INT32: np.int32, KIND.FLOAT32: np.float32}


class Case:
    def __init__(self):
        self.model, self.graph = fb.ModelT(), fb.SubGraphT()
        self.model.version, self.model.buffers = 3, [fb.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape, kind=KIND.INT8, scale=None, zero=0, data=None):
        t = fb.TensorT()
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
        c = fb.OperatorCodeT()
        c.builtinCode, c.deprecatedBuiltinCode, c.version = code, min(code, 127), 1
        self.model.operatorCodes.append(c)
        o = fb.OperatorT()
        o.opcodeIndex, o.inputs, o.outputs = len(self.model.operatorCodes) - 1, inputs, [output]
        if options:
            o.builtinOptionsType = getattr(fb.BuiltinOptions, options)
            o.builtinOptions = getattr(fb, options + "T")()
            for name, value in fields.items():
                assert hasattr(o.builtinOptions, name), name
                setattr(o.builtinOptions, name, value)
        self.graph.operators.append(o)

    def write(self, folder, name, x, y):
        self.graph.inputs, self.graph.outputs = [x], [y]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        model = bytes(builder.Output())
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


def slice_(shape, begin, end, strides, out, begin_mask=0, end_mask=0):
    c = Case()
    x, y = c.tensor(shape, scale=0.1, zero=-4), c.tensor(out, scale=0.1, zero=-4)
    c.op(OP.STRIDED_SLICE, [x, c.ints(begin), c.ints(end), c.ints(strides)], y, "StridedSliceOptions", beginMask=begin_mask, endMask=end_mask)
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
folder.mkdir(parents=True, exist_ok=True)
for name, make in CASES.items():
    case, x, y = make()
    try:
        case.write(folder, name, x, y)
    except RuntimeError as error:
        print(f"{name}: TFLite Micro does not run it ({error})", file=sys.stderr)
