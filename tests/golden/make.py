"""Golden vectors of single int8 operators, computed by TFLite Micro itself.

    python -m venv venv && venv/bin/pip install tflite-micro numpy flatbuffers
    venv/bin/python make.py > tflm.txt

Each case is a model with one operator, random weights and inputs. TFLite Micro's own interpreter runs it; its
fixed-point factors are derived here from the scales, as TFLite's QuantizeMultiplier defines them.
"""

import math
import sys

import flatbuffers
import numpy as np
import tflite_micro
from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as fb

rng = np.random.default_rng(20240611)
f32 = np.float32


def multiplier(real):
    """TFLite QuantizeMultiplier."""
    if real == 0:
        return 0, 0
    fraction, shift = math.frexp(real)
    mantissa = int(math.floor(fraction * (1 << 31) + 0.5))
    if mantissa == 1 << 31:
        mantissa //= 2
        shift += 1
    return (0, 0) if shift < -31 else (mantissa, shift)


class Tensor:
    def __init__(self, shape, data=None, scale=1.0, zero=0, dtype="i8", axis=0):
        self.shape, self.data, self.dtype, self.axis = list(shape), data, dtype, axis
        self.scales = [f32(s) for s in (scale if isinstance(scale, list) else [scale])]
        self.zero = int(zero)

    @property
    def scale(self):
        return self.scales[0]


TYPES = {"i8": fb.TensorType.INT8, "i32": fb.TensorType.INT32, "f32": fb.TensorType.FLOAT32}
NUMPY = {"i8": np.int8, "i32": np.int32, "f32": np.float32}


def invoke(code, version, options_type, options, inputs, constants, output):
    """The output of one operator over `inputs` (activations) and `constants`."""
    model, graph = fb.ModelT(), fb.SubGraphT()
    model.version, model.buffers, graph.tensors = 3, [fb.BufferT()], []
    for t in inputs + constants + [output]:
        tensor = fb.TensorT()
        tensor.shape, tensor.type, tensor.name = t.shape, TYPES[t.dtype], f"t{len(graph.tensors)}".encode()
        tensor.buffer = 0
        if any(t is c for c in constants):
            buffer = fb.BufferT()
            buffer.data = list(np.asarray(t.data, NUMPY[t.dtype]).tobytes())
            model.buffers.append(buffer)
            tensor.buffer = len(model.buffers) - 1
        if t.dtype != "f32":
            q = fb.QuantizationParametersT()
            q.scale, q.zeroPoint = [float(s) for s in t.scales], [t.zero] * len(t.scales)
            q.quantizedDimension = t.axis
            tensor.quantization = q
        graph.tensors.append(tensor)
    op, opcode = fb.OperatorT(), fb.OperatorCodeT()
    opcode.builtinCode, opcode.deprecatedBuiltinCode, opcode.version = code, min(code, 127), version
    op.inputs = list(range(len(inputs) + len(constants)))
    op.outputs = [len(op.inputs)]
    op.builtinOptionsType, op.builtinOptions = options_type, options
    graph.operators, graph.inputs, graph.outputs = [op], list(range(len(inputs))), op.outputs
    graph.name = b"main"
    model.operatorCodes, model.subgraphs, model.description = [opcode], [graph], b""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    interpreter = tflite_micro.runtime.Interpreter.from_bytes(bytes(builder.Output()), arena_size=1 << 20)
    for i, t in enumerate(inputs):
        interpreter.set_input(np.asarray(t.data, NUMPY[t.dtype]).reshape(t.shape), i)
    interpreter.invoke()
    return np.asarray(interpreter.get_output(0)).reshape(output.shape)


def line(kind, t):
    data = np.asarray(t.data, NUMPY[t.dtype]).reshape(-1)
    if t.dtype == "i8":
        text = data.astype("<i1").tobytes().hex()
    else:
        text = data.astype("<i4" if t.dtype == "i32" else "<f4").tobytes().hex()
    scales = ",".join(np.array(t.scales, "<f4").view("<u4")[i : i + 1].tobytes()[::-1].hex() for i in range(len(t.scales)))
    print(kind, t.dtype, ",".join(map(str, t.shape)), scales, t.zero, text)


def case(code, words, operands, output):
    """`operands`: (tensor, is a constant) in our operator's order."""
    print("op", code, *[int(w) & 0xFFFFFFFF for w in words])
    for t, constant in operands:
        line("constant" if constant else "input", t)
    line("output", output)


def integers(shape, low=-128, high=127):
    return rng.integers(low, high + 1, shape)


def activation_tensor(shape, scale=None, zero=None):
    scale = float(rng.uniform(0.01, 0.1)) if scale is None else scale
    zero = rng.integers(-128, 128) if zero is None else zero
    return Tensor(shape, integers(shape), scale, zero)


def same(size, kernel, stride, dilation):
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def geometry(h, w, k, s, d, padding):
    if padding == "same":
        (top, bottom), (left, right) = same(h, k[0], s[0], d[0]), same(w, k[1], s[1], d[1])
    else:
        top = bottom = left = right = 0
    out = lambda n, a, b, k, s, d: (n + a + b - (k - 1) * d - 1) // s + 1
    return (top, left, bottom, right), (out(h, top, bottom, k[0], s[0], d[0]), out(w, left, right, k[1], s[1], d[1]))


def weights_case(x, w, channels, make):
    """Bias, output and factors for weights; `make(bias, output)` runs the model."""
    depth = w.data.size // channels
    per_channel = len(w.scales) > 1
    bias = Tensor([channels], rng.integers(-4000, 4000, channels), dtype="i32")
    bias.scales = [f32(f32(x.scale) * s) for s in w.scales]
    output = Tensor([], scale=float(x.scale) * 0.02 * math.sqrt(depth) * 40, zero=rng.integers(-60, 60))
    factors = []
    for c in range(channels):
        s = w.scales[c if per_channel else 0]
        # A dense layer with one scale multiplies the two scales in single precision.
        product = float(x.scale) * float(s) if w.per_channel_arithmetic else float(f32(x.scale * s))
        factors.append(multiplier(product / float(output.scale)))
    constants = [
        (Tensor([channels], [f[0] for f in factors], dtype="i32"), True),
        (Tensor([channels], [f[1] for f in factors], dtype="i32"), True),
    ]
    words = make(bias, output)
    return words, [(x, False), (w, True), (bias, True)] + constants, output


def conv(depthwise, x_shape, k, out, s, d, padding, fused):
    n, h, w, c = x_shape
    pads, (oh, ow) = geometry(h, w, k, s, d, padding)
    channels = c * out if depthwise else out
    shape = [1, *k, channels] if depthwise else [out, *k, c]
    weights = Tensor(shape, integers(shape, -127), [float(v) for v in rng.uniform(0.005, 0.03, channels)],
                     axis=3 if depthwise else 0)
    weights.per_channel_arithmetic = True
    x = activation_tensor(x_shape)

    def make(bias, output):
        output.shape = [n, oh, ow, channels]
        options = fb.DepthwiseConv2DOptionsT() if depthwise else fb.Conv2DOptionsT()
        options.padding = fb.Padding.SAME if padding == "same" else fb.Padding.VALID
        options.strideH, options.strideW = s
        options.dilationHFactor, options.dilationWFactor = d
        options.fusedActivationFunction = [0, 1, 3][fused]
        if depthwise:
            options.depthMultiplier = out
        code = fb.BuiltinOperator.DEPTHWISE_CONV_2D if depthwise else fb.BuiltinOperator.CONV_2D
        kind = fb.BuiltinOptions.DepthwiseConv2DOptions if depthwise else fb.BuiltinOptions.Conv2DOptions
        output.data = invoke(code, 3, kind, options, [x], [weights, bias], output)
        return [*s, *d, *pads, fused]

    words, operands, output = weights_case(x, weights, channels, make)
    case(2 if depthwise else 1, words, operands, output)


def dense(n, depth, out, fused, per_channel):
    x = activation_tensor([n, depth])
    scales = rng.uniform(0.005, 0.03, out if per_channel else 1)
    weights = Tensor([out, depth], integers([out, depth], -127), [float(v) for v in scales])
    weights.per_channel_arithmetic = per_channel

    def make(bias, output):
        output.shape = [n, out]
        options = fb.FullyConnectedOptionsT()
        options.fusedActivationFunction = [0, 1, 3][fused]
        output.data = invoke(fb.BuiltinOperator.FULLY_CONNECTED, 4, fb.BuiltinOptions.FullyConnectedOptions,
                             options, [x], [weights, bias], output)
        return [fused]

    words, operands, output = weights_case(x, weights, out, make)
    case(3, words, operands, output)


def arithmetic(add, a_shape, b_shape, fused):
    a, b = activation_tensor(a_shape), activation_tensor(b_shape)
    shape = np.broadcast_shapes(a_shape, b_shape)
    sa, sb = float(a.scale), float(b.scale)
    scale = float(rng.uniform(0.02, 0.15)) if add else sa * sb * float(rng.uniform(40, 90))
    output = Tensor(shape, scale=scale, zero=rng.integers(-128, 128))
    so = float(output.scale)
    options = fb.AddOptionsT() if add else fb.MulOptionsT()
    options.fusedActivationFunction = [0, 1, 3][fused]
    if add:
        twice = 2 * max(sa, sb)
        words = [fused, 20, *multiplier(sa / twice), *multiplier(sb / twice), *multiplier(twice / ((1 << 20) * so))]
        output.data = invoke(fb.BuiltinOperator.ADD, 2, fb.BuiltinOptions.AddOptions, options, [a, b], [], output)
    else:
        words = [fused, *multiplier(sa * sb / so)]
        output.data = invoke(fb.BuiltinOperator.MUL, 2, fb.BuiltinOptions.MulOptions, options, [a, b], [], output)
    case(4 if add else 5, words, [(a, False), (b, False)], output)


def pool(maximum, x_shape, k, s, padding, fused):
    n, h, w, c = x_shape
    pads, (oh, ow) = geometry(h, w, k, s, (1, 1), padding)
    x = activation_tensor(x_shape)
    output = Tensor([n, oh, ow, c], scale=float(x.scale), zero=x.zero)
    options = fb.Pool2DOptionsT()
    options.padding = fb.Padding.SAME if padding == "same" else fb.Padding.VALID
    options.strideH, options.strideW = s
    options.filterHeight, options.filterWidth = k
    options.fusedActivationFunction = [0, 1, 3][fused]
    code = fb.BuiltinOperator.MAX_POOL_2D if maximum else fb.BuiltinOperator.AVERAGE_POOL_2D
    output.data = invoke(code, 2, fb.BuiltinOptions.Pool2DOptions, options, [x], [], output)
    case(7 if maximum else 6, [*k, *s, *pads, fused], [(x, False)], output)


def softmax(shape, scale, beta):
    x = activation_tensor(shape, scale)
    output = Tensor(shape, scale=1 / 256, zero=-128)
    options = fb.SoftmaxOptionsT()
    options.beta = beta
    output.data = invoke(fb.BuiltinOperator.SOFTMAX, 2, fb.BuiltinOptions.SoftmaxOptions, options, [x], [], output)
    real = min(float(f32(beta)) * float(x.scale) * (1 << 26), (1 << 31) - 1.0)
    mantissa, shift = multiplier(real)
    radius = math.floor(31 * (1 << 26) / (1 << shift))
    words = [int(f32(beta).view(np.uint32)), mantissa, shift, -radius]
    case(11, words, [(x, False)], output)


def pad(shape, before, after):
    x = activation_tensor(shape)
    output = Tensor([d + a + b for d, a, b in zip(shape, before, after)], scale=float(x.scale), zero=x.zero)
    amounts = Tensor([len(shape), 2], list(zip(before, after)), dtype="i32")
    output.data = invoke(fb.BuiltinOperator.PAD, 2, fb.BuiltinOptions.PadOptions, fb.PadOptionsT(), [x], [amounts], output)
    fill = [0] * (6 - len(shape))
    case(8, [*before, *fill, *after, *fill], [(x, False)], output)


def concat(shapes, axis):
    first = activation_tensor(shapes[0])
    xs = [first] + [activation_tensor(s, float(first.scale), first.zero) for s in shapes[1:]]
    shape = list(shapes[0])
    shape[axis] = sum(s[axis] for s in shapes)
    output = Tensor(shape, scale=float(first.scale), zero=first.zero)
    options = fb.ConcatenationOptionsT()
    options.axis = axis
    output.data = invoke(fb.BuiltinOperator.CONCATENATION, 2, fb.BuiltinOptions.ConcatenationOptions, options, xs, [], output)
    case(10, [axis], [(x, False) for x in xs], output)


def quantize(n, scale, zero):
    data = np.concatenate([rng.normal(0, 40 * scale, n), (np.arange(-30, 30) + 0.5) * scale]).astype(np.float32)
    x = Tensor([1, len(data)], data, dtype="f32")
    output = Tensor(x.shape, scale=scale, zero=zero)
    output.data = invoke(fb.BuiltinOperator.QUANTIZE, 1, fb.BuiltinOptions.QuantizeOptions, fb.QuantizeOptionsT(), [x], [], output)
    case(14, [], [(x, False)], output)


def unary(kind, scale, zero, out_scale, out_zero, alpha=None):
    x = Tensor([1, 256], np.arange(-128, 128), scale, zero)
    output = Tensor([1, 256], scale=out_scale, zero=out_zero)
    B, O = fb.BuiltinOperator, fb.BuiltinOptions
    codes = [B.RELU, B.RELU6, B.LEAKY_RELU, B.TANH, B.LOGISTIC, B.QUANTIZE]
    options_type, options = 0, None
    if kind == 2:
        options_type, options = O.LeakyReluOptions, fb.LeakyReluOptionsT()
        options.alpha = alpha
    output.data = invoke(codes[kind], 2, options_type, options, [x], [], output)
    case(12, [kind] + ([int(f32(alpha).view(np.uint32))] if kind == 2 else []), [(x, False)], output)


def dequantize():
    x = Tensor([1, 256], np.arange(-128, 128), float(rng.uniform(0.01, 0.1)), rng.integers(-128, 128))
    output = Tensor(x.shape, dtype="f32")
    output.data = invoke(fb.BuiltinOperator.DEQUANTIZE, 2, fb.BuiltinOptions.DequantizeOptions, fb.DequantizeOptionsT(), [x], [], output)
    case(15, [], [(x, False)], output)


print("# TFLite Micro", tflite_micro.__version__, "- made by make.py, read by tests/tflm_golden.rs")
for fused in range(3):
    for padding in ["same", "valid"]:
        conv(False, [1, 7, 6, 3], (3, 3), 4, (1, 1), (1, 1), padding, fused)
        conv(True, [1, 7, 6, 3], (3, 3), 2, (1, 1), (1, 1), padding, fused)
        pool(False, [1, 7, 5, 3], (3, 2), (2, 1), padding, fused)
        pool(True, [1, 7, 5, 3], (3, 2), (2, 1), padding, fused)
    conv(False, [1, 8, 7, 2], (2, 3), 3, (2, 2), (1, 1), "same", fused)
    conv(False, [1, 8, 8, 2], (3, 3), 3, (1, 1), (2, 2), "same", fused)
    conv(True, [1, 8, 7, 9], (3, 3), 1, (2, 2), (1, 1), "same", fused)
    conv(True, [1, 9, 9, 2], (3, 3), 1, (1, 1), (2, 2), "valid", fused)
    dense(2, 40, 7, fused, False)
    dense(1, 33, 5, fused, True)
    for add in [True, False]:
        arithmetic(add, [1, 4, 5, 6], [1, 4, 5, 6], fused)
        arithmetic(add, [1, 4, 5, 6], [1, 1, 1, 6], fused)
        arithmetic(add, [2, 1, 5, 1], [2, 3, 1, 4], fused)
for _ in range(12):
    dense(1, 40, 16, 0, False)
pool(False, [1, 8, 8, 8], (8, 8), (1, 1), "valid", 0)
for n, scale, beta in [(10, 0.1, 1.0), (10, 0.02, 1.0), (2, 0.5, 1.0), (12, 0.17, 0.5), (100, 0.05, 1.0), (300, 0.01, 2.0), (1, 0.1, 1.0)]:
    softmax([4, n], scale, beta)
pad([1, 4, 3, 2], [0, 1, 2, 0], [0, 0, 1, 0])
pad([2, 3], [0, 1], [1, 2])
concat([[1, 3, 2, 2], [1, 3, 2, 3]], 3)
concat([[1, 3, 2], [1, 1, 2], [1, 2, 2]], 1)
for scale, zero in [(0.1, 5), (0.013, -20), (0.4, 0)]:
    unary(0, scale, zero, scale * 0.7, -128)
    unary(1, scale, zero, scale, zero)
    unary(2, scale, zero, scale * 1.3, 10, 0.1)
    unary(3, scale, zero, 1 / 128, 0)
    unary(4, scale, zero, 1 / 256, -128)
    unary(5, scale, zero, scale * 0.37, 4)
    unary(5, scale, zero, scale * 2.9, -100)
quantize(100, 0.05, 3)
quantize(100, 1 / 3, -128)
dequantize()
