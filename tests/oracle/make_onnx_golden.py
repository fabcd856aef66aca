"""Writes tests/golden/onnx_int8.npz: what ONNX Runtime makes of the shared int8 .onnx models.

python make_onnx_golden.py SHARED_DATA OUT.npz

For each model and each of the first samples of its data: the steps of its last int8 tensor (the scores before a softmax), as int8
(uint8 minus 128), and the label. Twice: `NAME` as ONNX Runtime runs the model by default (int8 operators where it has them), and
`NAME_plain` with all of its optimizations off (f32 operators between quantizations), where there is such a form.
"""

import gzip
import sys

import numpy as np
import onnx
import onnxruntime as ort

shared, out = sys.argv[1:]


def mnist(n):
    with gzip.open(f"{shared}/datasets/mnist/t10k-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:n]
    with gzip.open(f"{shared}/datasets/mnist/t10k-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:n]
    return x.astype(np.float32), y


def npz(name, key="x"):
    z = np.load(f"{shared}/datasets/{name}.npz")
    return z[key].astype(np.float32), z["y"]


def vww():
    x, y = npz("vww_200")
    return (x / np.float32(255)).transpose(0, 3, 1, 2).copy(), y


def machine_sounds():
    """The inputs of the shared golden of the .tflite sibling, in real numbers."""
    q = np.load(f"{shared}/goldens/mlperf_ad_int8.npz")["inputs"].reshape(-1, 640)
    scale, zero = np.float32(0.3910152), 89
    return scale * (q.astype(np.float32) - zero), None


models = {
    "mlperf_resnet_qdq": npz("cifar10_test_1000"),
    "mlperf_kws_ref_model_qdq": npz("kws_mfcc_1000", "x_f32"),
    "mlperf_mobilenet_v1_qdq": vww(),
    "mlperf_deep_autoencoder_qdq": machine_sounds(),
    "mnist8_qdq_i8": mnist(1000),
    "mnist8_qoperator_u8i8": mnist(1000),
}
arrays = {}
for name, (x, y) in models.items():
    model = onnx.load(f"{shared}/models/{name}.onnx")
    graph = model.graph
    # the last int8 tensor is what the last DequantizeLinear of an activation reads
    constants = {i.name for i in graph.initializer}
    last = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] not in constants][-1]
    unsigned = name.endswith("u8i8")
    kind = onnx.TensorProto.UINT8 if unsigned else onnx.TensorProto.INT8
    graph.output.append(onnx.helper.make_tensor_value_info(last.input[0], kind, None))
    forms = {"": ort.GraphOptimizationLevel.ORT_ENABLE_ALL}
    if not unsigned:
        forms["_plain"] = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for suffix, level in forms.items():
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        entry = session.get_inputs()[0]
        shape = [1] + entry.shape[1:]
        steps = [session.run(None, {entry.name: s.reshape(shape)}) for s in x]
        q = np.concatenate([s[1].reshape(1, -1) for s in steps])
        q = (q.astype(np.int16) - 128).astype(np.int8) if unsigned else q
        arrays[name + suffix] = q
        if y is not None:
            right = np.mean([int(s[0].argmax()) == int(t) for s, t in zip(steps, y)])
            print(f"{name}{suffix}: {100 * right:.2f} % of {len(x)} right")
    d = np.abs(arrays[name].astype(int) - arrays.get(name + "_plain", arrays[name]).astype(int))
    print(f"{name}: its two forms differ by at most {d.max()} steps, {d.mean():.4f} on average")
print("onnxruntime", ort.__version__)
np.savez_compressed(out, **arrays)
