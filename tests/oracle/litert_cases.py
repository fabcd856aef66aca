"""Random small .tflite models, and what LiteRT answers with its reference kernels and with XNNPACK.

    python litert_cases.py FOLDER [MODEL.tflite ...]

For each model NAME.tflite, NAME.in (16 samples), NAME.reference and NAME.xnnpack in FOLDER; the models named on the command line are
copied and run too. Samples and answers are as the models' memory has them.
"""

import pathlib
import sys

import flatbuffers
import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as fb

SAMPLES = 16
KERNELS = {"reference": OpResolverType.BUILTIN_REF, "xnnpack": OpResolverType.BUILTIN}
OP, KIND = fb.BuiltinOperator, fb.TensorType
rng = np.random.default_rng(3)


class Model:
    """One operator: tensors are added in the order in which it reads them."""

    def __init__(self):
        self.model, self.graph = fb.ModelT(), fb.SubGraphT()
        self.model.version, self.model.buffers = 3, [fb.BufferT()]
        self.model.operatorCodes, self.model.subgraphs = [], [self.graph]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, shape, scale=None, zero=0, kind=KIND.INT8, data=None):
        t = fb.TensorT()
        t.shape, t.type, t.buffer, t.name = list(shape), kind, 0, f"t{len(self.graph.tensors)}"
        if scale is not None:
            scales = np.atleast_1d(np.float32(scale))
            t.quantization = fb.QuantizationParametersT()
            t.quantization.scale, t.quantization.zeroPoint = scales.tolist(), [zero] * len(scales)
        if data is not None:
            buffer = fb.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            t.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(t)
        return len(self.graph.tensors) - 1

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

    def bytes(self, x, y):
        self.graph.inputs, self.graph.outputs = [x], [y]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def scale(low=0.01, high=0.2):
    return np.float32(np.exp(rng.uniform(np.log(low), np.log(high))))


def zero():
    return int(rng.integers(-128, 128))


def weights(m, x_scale, shape, channels, axis, per_channel):
    """int8 weights and an int32 bias."""
    scales = np.array([scale(0.005, 0.03) for _ in range(channels if per_channel else 1)], np.float32)
    w = m.tensor(shape, scales, data=rng.integers(-127, 128, shape).astype(np.int8))
    m.graph.tensors[w].quantization.quantizedDimension = axis
    b = m.tensor([channels], np.float32(x_scale) * scales, kind=KIND.INT32, data=rng.integers(-4000, 4000, [channels]).astype(np.int32))
    return [w, b]


def layer(kind):
    m, s, act, per_channel = Model(), scale(), int(rng.choice([0, 1, 3])), bool(rng.integers(2))
    if kind == "dense":
        n, o = int(rng.integers(3, 90)), int(rng.integers(2, 20))
        x = m.tensor([1, n], s, zero())
        w = weights(m, s, [o, n], o, 0, per_channel)
        y = m.tensor([1, o], scale(0.05, 0.5), zero())
        m.op(OP.FULLY_CONNECTED, [x, *w], y, "FullyConnectedOptions", fusedActivationFunction=act)
        return m, x, y
    c, stride = int(rng.integers(1, 7)), int(rng.integers(1, 3))
    x = m.tensor([1, 7, 6, c], s, zero())
    fields = dict(padding=int(rng.integers(2)), strideW=stride, strideH=stride, fusedActivationFunction=act, dilationWFactor=1, dilationHFactor=1)
    side = [7, 6] if fields["padding"] == 0 else [5, 4]
    out = [-(-d // stride) for d in side]
    if kind == "conv":
        o = int(rng.integers(1, 9))
        w = weights(m, s, [o, 3, 3, c], o, 0, True)
        y = m.tensor([1, *out, o], scale(0.05, 0.5), zero())
        m.op(OP.CONV_2D, [x, *w], y, "Conv2DOptions", **fields)
    else:
        w = weights(m, s, [1, 3, 3, c], c, 3, True)
        y = m.tensor([1, *out, c], scale(0.05, 0.5), zero())
        m.op(OP.DEPTHWISE_CONV_2D, [x, *w], y, "DepthwiseConv2DOptions", depthMultiplier=1, **fields)
    return m, x, y


def pair(code, options):
    m = Model()
    shape, k = [1, 3, 4, 5], int(rng.choice([0, 1, 3]))
    x, y = m.tensor(shape, scale(), zero()), m.tensor(shape, scale(0.02, 0.4), zero())
    other = m.tensor([5], scale(0.0005, 2.0), zero(), data=rng.integers(-128, 128, [5]).astype(np.int8))
    m.op(code, [x, other], y, options, fusedActivationFunction=k)
    return m, x, y


def unary(code, options=None, grid=None, **fields):
    m = Model()
    x = m.tensor([1, 256], scale(), zero())
    y = m.tensor([1, 256], *(grid or (scale(), zero())))
    m.op(code, [x], y, options, **fields)
    return m, x, y


def mean(axes, out):
    m = Model()
    x = m.tensor([1, 4, 3, 5], scale(), zero())
    axes = m.tensor([len(axes)], kind=KIND.INT32, data=np.array(axes, np.int32))
    y = m.tensor(out, scale(0.005, 0.1), zero())
    m.op(OP.MEAN, [x, axes], y, "ReducerOptions", keepDims=len(out) == 4)
    return m, x, y


def pool(code):
    m, s, z = Model(), scale(), zero()
    x, y = m.tensor([1, 6, 6, 3], s, z), m.tensor([1, 3, 3, 3], s, z)
    m.op(code, [x], y, "Pool2DOptions", padding=0, strideW=2, strideH=2, filterWidth=3, filterHeight=3, fusedActivationFunction=int(rng.choice([0, 1])))
    return m, x, y


def ends():
    """float32 in and out, int8 within."""
    m, s, z = Model(), scale(), zero()
    x, q, y = m.tensor([1, 64], kind=KIND.FLOAT32), m.tensor([1, 64], s, z), m.tensor([1, 64], kind=KIND.FLOAT32)
    m.op(OP.QUANTIZE, [x], q)
    m.op(OP.DEQUANTIZE, [q], y)
    return m, x, y


CASES = {
    "conv": lambda: layer("conv"),
    "depthwise": lambda: layer("depthwise"),
    "dense": lambda: layer("dense"),
    "add": lambda: pair(OP.ADD, "AddOptions"),
    "mul": lambda: pair(OP.MUL, "MulOptions"),
    "softmax": lambda: unary(OP.SOFTMAX, "SoftmaxOptions", (1 / 256, -128), beta=1.0),
    "logistic": lambda: unary(OP.LOGISTIC, grid=(1 / 256, -128)),
    "tanh": lambda: unary(OP.TANH, grid=(1 / 128, 0)),
    "leaky_relu": lambda: unary(OP.LEAKY_RELU, "LeakyReluOptions", alpha=float(rng.uniform(0.001, 0.6))),
    "relu": lambda: unary(OP.RELU),
    "relu6": lambda: unary(OP.RELU6),
    "requantize": lambda: unary(OP.QUANTIZE),
    "mean_hw": lambda: mean([1, 2], [1, 5]),
    "mean_hw_kept": lambda: mean([1, 2], [1, 1, 1, 5]),
    "mean_last": lambda: mean([3], [1, 4, 3]),
    "average_pool": lambda: pool(OP.AVERAGE_POOL_2D),
    "max_pool": lambda: pool(OP.MAX_POOL_2D),
    "ends": ends,
}


def run(model, samples, kernels):
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=KERNELS[kernels], num_threads=1)
    interpreter.allocate_tensors()
    x, y = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    answers = []
    for sample in samples:
        interpreter.set_tensor(x["index"], sample)
        interpreter.invoke()
        answers.append(interpreter.get_tensor(y["index"]).copy())
    return np.stack(answers)


def draw(details):
    shape, dtype = [SAMPLES, *details["shape"]], details["dtype"]
    if dtype == np.float32:
        return rng.normal(0, 3, shape).astype(np.float32)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def write(folder, name, model):
    samples = draw(Interpreter(model_content=model).get_input_details()[0])
    for kernels in KERNELS:
        (folder / f"{name}.{kernels}").write_bytes(run(model, samples, kernels).tobytes())
    (folder / f"{name}.in").write_bytes(samples.tobytes())
    (folder / f"{name}.tflite").write_bytes(model)


folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name, make in CASES.items():
    for k in range(4):
        m, x, y = make()
        write(folder, f"{name}_{k}", m.bytes(x, y))
for path in map(pathlib.Path, sys.argv[2:]):
    try:
        write(folder, path.stem, path.read_bytes())
    except (RuntimeError, ValueError) as error:
        print(f"{path.stem}: LiteRT does not run it ({error})", file=sys.stderr)
