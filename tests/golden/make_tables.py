"""Every int8 output of single-element functions, computed by TFLite Micro itself: what the quantizer's tables must be.

    venv/bin/python make_tables.py > tables.txt     (the environment of make.py)

One line per case: NAME ALPHA X_SCALE X_ZERO Y_SCALE Y_ZERO OUTPUTS, everything but the zero points as little-endian
bytes in hexadecimal: floats, and one output for each of the inputs -128..=127.
"""

import contextlib
import io

with contextlib.redirect_stdout(io.StringIO()):
    import make
from make import Tensor, fb, np, tflite_micro

EVERY = np.arange(-128, 128)
PROBABILITY, TANH = (1 / 256, -128), (1 / 128, 0)


def bits(v):
    return np.array([v], "<f4").tobytes().hex()


def case(name, code, x, y, alpha=0.0, options_type=0, options=None):
    a, b = Tensor([256], EVERY, x[0], x[1]), Tensor([256], None, y[0], y[1])
    out = make.invoke(code, 1, options_type, options, [a], [], b)
    hexes = np.asarray(out, "<i1").tobytes().hex()
    print(name, bits(alpha), bits(a.scale), a.zero, bits(b.scale), b.zero, hexes)


def leaky(alpha):
    options = fb.LeakyReluOptionsT()
    options.alpha = alpha
    return dict(alpha=alpha, options_type=fb.BuiltinOptions.LeakyReluOptions, options=options)


print("# TFLite Micro", tflite_micro.__version__, "- made by make_tables.py, read by tests/quantize.rs")
op = fb.BuiltinOperator
rng = np.random.default_rng(7)
for _ in range(12):
    x = (float(rng.uniform(0.003, 0.2)), int(rng.integers(-128, 128)))
    y = (float(x[0] * rng.uniform(0.3, 3.0)), int(rng.integers(-128, 128)))
    case("relu", op.RELU, x, y)
    case("relu6", op.RELU6, x, x)
    case("leaky_relu", op.LEAKY_RELU, x, y, **leaky(float(rng.uniform(0.01, 0.5))))
    case("tanh", op.TANH, x, TANH)
    case("sigmoid", op.LOGISTIC, x, PROBABILITY)
    case("requantize", op.QUANTIZE, x, y)
for scale in [1e-4, 1e-3, 0.5, 1.0, 3.0, 7.9, 8.0, 20.0]:
    case("tanh", op.TANH, (scale, 5), TANH)
    case("sigmoid", op.LOGISTIC, (scale, -17), PROBABILITY)
