"""Runs a .tflite model in TFLite Micro: python run_tflm.py MODEL INPUTS OUTPUTS.

INPUTS and OUTPUTS are files of whole samples, one after another, as the model's memory has them (int8, or f32 little-endian).
"""

import sys

import numpy as np
from tflite_micro.python.tflite_micro import runtime

model, inputs, outputs = sys.argv[1:]
interpreter = runtime.Interpreter.from_file(model, arena_size=1 << 22)
details = interpreter.get_input_details(0)
shape, dtype = details["shape"], np.dtype(details["dtype"])
samples = np.fromfile(inputs, dtype=dtype).reshape(-1, *shape)
with open(outputs, "wb") as file:
    for sample in samples:
        interpreter.set_input(sample, 0)
        interpreter.invoke()
        file.write(np.ascontiguousarray(interpreter.get_output(0)).tobytes())
