"""What TFLite Micro answers on the real data of the shared folder: one label per sample.

    ORACLE/bin/python tests/oracle/make_labels.py ../shared/data tests/golden/labels.txt

Each line: model, data set, samples, `alone` or `stream`, and the labels as one digit each (base 36). Alone: a model that keeps a
state is reset before each sample. tests/accuracy.rs makes the same inputs, and wants the same labels.
"""

import csv
import gzip
import pathlib
import sys

import numpy as np
from tflite_micro.python.tflite_micro import runtime

shared, out = map(pathlib.Path, sys.argv[1:])


def npz(name):
    data = np.load(shared / f"datasets/{name}.npz")
    return data["x"], data["y"]


def mnist(count=2000):
    folder = shared / "datasets/mnist"
    x = np.frombuffer(gzip.open(folder / "t10k-images-idx3-ubyte.gz").read()[16:], np.uint8)
    y = np.frombuffer(gzip.open(folder / "t10k-labels-idx1-ubyte.gz").read()[8:], np.uint8)
    return x.reshape(-1, 784)[:count], y[:count]


def magic_wand():
    """Windows of 119 rows; accelerations from -4 to 4 g and rotations from -2000 to 2000 degrees a second to 0 to 1."""
    x, y = [], []
    for label, file in enumerate(sorted((shared / "datasets/magic_wand/test").glob("*.csv"))):
        rows = np.array([[float(v) for v in r] for r in list(csv.reader(file.open()))[1:]])
        rows = (rows + [4, 4, 4, 2000, 2000, 2000]) / [8, 8, 8, 4000, 4000, 4000]
        for window in rows.reshape(-1, 119 * 6):
            x.append(window)
            y.append(label)
    return np.array(x, np.float32), np.array(y)


def quantized(real, details):
    """Single precision, halves away from zero."""
    scale, zero = np.float32(details["scales"][0]), int(details["zero_points"][0])
    steps = (np.asarray(real, np.float32) / scale).astype(np.float32)
    steps = np.copysign(np.floor(np.abs(steps.astype(np.float64)) + 0.5), steps)
    return np.clip(steps + zero, -128, 127).astype(np.int8)


def unit(x):
    return x.astype(np.float32) / np.float32(255)


def normalized(x):
    """The usual mean and deviation of CIFAR-10's channels."""
    mean, std = np.array([0.4914, 0.4822, 0.4465], np.float32), np.array([0.2470, 0.2435, 0.2616], np.float32)
    return (unit(x) - mean) / std


# model, data set, its samples, real input from the samples (None: they are int8 already)
CASES = [
    ("pretrainedResnet_quant", "cifar10_test_1000", npz, lambda x: x.astype(np.float32)),
    ("kws_ref_model", "kws_mfcc_1000", npz, None),
    ("vww_96_int8", "vww_200", npz, unit),
    ("micro_speech_quantized", "micro_speech_600", npz, None),
    ("trained_lstm_int8", "mnist", lambda _: mnist(), unit),
    ("trained_lstm_int8", "mnist", lambda _: mnist(), unit, "stream"),
    ("tinymaix_mnist_resnet_int8", "mnist", lambda _: mnist(), unit),
    ("tinymaix_mnist_valid_int8", "mnist", lambda _: mnist(), unit),
    ("lenet_300_100_mnist_int8", "mnist", lambda _: mnist(), unit),
    ("magic_wand_imu_int8", "magic_wand", lambda _: magic_wand(), lambda x: x),
    ("arm_cifar10_int8", "cifar10_test_1000", npz, normalized),
]

lines = []
for model, name, read, prepare, *how in CASES:
    interpreter = runtime.Interpreter.from_file(str(shared / f"models/{model}.tflite"), arena_size=1 << 22)
    details = interpreter.get_input_details(0)
    x, y = read(name)
    labels = []
    for sample in x:
        if prepare:
            sample = prepare(sample)
            if details["dtype"] == np.int8:
                sample = quantized(sample, details["quantization_parameters"])
        if not how:
            interpreter.reset()
        interpreter.set_input(np.ascontiguousarray(sample).reshape(details["shape"]), 0)
        interpreter.invoke()
        labels.append(int(np.argmax(np.array(interpreter.get_output(0)))))
    print(model, f"{100 * np.mean(np.array(labels) == y):.2f} % of {len(y)}", file=sys.stderr)
    lines.append(f"{model} {name} {len(labels)} {'stream' if how else 'alone'} " + "".join(np.base_repr(v, 36) for v in labels))
out.write_text("\n".join(lines) + "\n")
