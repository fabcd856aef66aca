#!/usr/bin/env python3
"""A .tflite model in the vendor's interpreter as a black box for foolproof.

    pip install ai-edge-litert numpy
    foolproof attack --target "program:python3 tflite_target.py model.tflite" \\
        --data samples.npz --attack square --norm linf --eps 0.1 --out adv.npz

One JSON object per line: see docs/targets.md. Needs a model with one input (int8 or float32) and one output of scores.
For a float model give the smallest and largest value of an input: tflite_target.py model.tflite 0 1
"""

import json
import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main():
    interpreter = Interpreter(sys.argv[1], num_threads=1)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    sink = interpreter.get_output_details()[0]
    is_int8 = source["dtype"] == np.int8
    introduction = {
        "protocol": 1,
        "name": sys.argv[1],
        "shape": [int(d) for d in source["shape"][1:]],
        "classes": int(np.prod(sink["shape"])),
        "answers": "scores",
        "type": "i8" if is_int8 else "f32",
    }
    if is_int8:
        scale, zero_point = source["quantization"]
        introduction |= {"scale": float(scale), "zero_point": int(zero_point)}
    else:
        low, high = (float(v) for v in sys.argv[2:4]) if len(sys.argv) > 3 else (0.0, 1.0)
        introduction["range"] = [low, high]

    for line in sys.stdin:
        question = json.loads(line)
        if "hello" in question:
            answer = introduction
        else:
            x = np.array(question["x"], dtype=source["dtype"]).reshape(source["shape"])
            interpreter.set_tensor(source["index"], x)
            interpreter.invoke()
            y = interpreter.get_tensor(sink["index"]).reshape(-1)
            scale, zero_point = sink["quantization"]
            scores = (y.astype(np.float32) - zero_point) * scale if scale else y
            answer = {"label": int(np.argmax(y)), "scores": [float(v) for v in scores]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
