"""How fast this project is beside its peers: the same work on the same machine, in turns, as ratios.

    python tests/oracle/bench_peers.py --foolproof target/release/foolproof --models FOLDER --out docs/speed.md

`--only latency,attacks,gan` measures these parts and keeps the others as the results file has them (target/bench_peers.json). Every
figure is taken `--rounds` times, ours and theirs in turns; what is compared is the best and the median of the rounds' medians. The packages
are those of `peers.txt`.
"""

import argparse
import importlib.metadata
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
import onnx
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import nn
from torch.nn import functional as F

# int8 models of the latency table: MLPerf Tiny's, and others that people deploy
INT8 = [
    "kws_ref_model",
    "pretrainedResnet_quant",
    "vww_96_int8",
    "ad01_int8",
    "str_ww_ref_model",
    "person_detect",
    "micro_speech_quantized",
    "arm_cifar10_int8",
]
STEPS = 40
EPSILON = 8 / 255
THREADS = [1, 2]


# --- timing -------------------------------------------------------------------------------------------------------------------


def clock(run, seconds):
    """Median seconds of a run, as `foolproof bench` measures: one run that does not count, then runs for about so long."""
    run()
    times, start = [], time.perf_counter()
    while True:
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
        spent = time.perf_counter() - start
        if spent >= seconds and (len(times) >= 3 or spent >= 4 * seconds):
            return statistics.median(times)


class Ours:
    def __init__(self, args):
        self.args = args

    def bench(self, model, only, batches=(), threads=1, kernels=None):
        """The rows of a run, and whether an int8 model's bits are the reference's."""
        line = [self.args.foolproof, "bench", *([model] if model else []), "--only", only]
        line += ["--threads", str(threads), "--seconds", str(self.args.seconds), "--json"]
        if batches:
            line += ["--batch", ",".join(map(str, batches))]
        if kernels:
            line += ["--kernels", kernels]
        run = subprocess.run(line, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(run.stderr.strip())
        found = json.loads(run.stdout)["bench"]
        return found["rows"], found.get("bits")


class Figures:
    """Seconds per sample of every contender, one figure a round."""

    def __init__(self):
        self.rounds = {}

    def add(self, name, seconds):
        self.rounds.setdefault(name, []).append(seconds)

    def fastest(self):
        """Name, best and median of the contender with the smallest median."""
        name = min(self.rounds, key=lambda name: statistics.median(self.rounds[name]))
        return {"name": name, "best": min(self.rounds[name]), "median": statistics.median(self.rounds[name])}

    def all(self):
        return {name: statistics.median(times) for name, times in self.rounds.items()}


def compared(ours, theirs):
    """How many times faster we are, by the bests and by the medians."""
    a, b = ours.fastest(), theirs.fastest()
    return {
        "ours": a,
        "theirs": b,
        "ratio_of_bests": b["best"] / a["best"],
        "ratio_of_medians": b["median"] / a["median"],
        "all": {"ours": ours.all(), "theirs": theirs.all()},
    }


def say(name, found):
    a, b = found["ours"], found["theirs"]
    print(
        f"{name}: ours {a['median'] * 1e6:.1f} us ({a['name']}), {b['name']} {b['median'] * 1e6:.1f} us, "
        f"{found['ratio_of_medians']:.2f} times as fast ({found['ratio_of_bests']:.2f} by the bests)",
        file=sys.stderr,
        flush=True,
    )


# --- latency ------------------------------------------------------------------------------------------------------------------


def litert(path, seconds):
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    random = numpy.random.default_rng(0)
    if given["dtype"] == numpy.float32:
        x = random.random(given["shape"], dtype=numpy.float32)
    else:
        x = random.integers(-128, 128, given["shape"]).astype(given["dtype"])
    interpreter.set_tensor(given["index"], x)
    # the native call, without what the Python class adds
    return clock(interpreter._interpreter.Invoke, seconds)


def ort(path, seconds, batch=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    shape = [batch if not isinstance(d, int) else d for d in given.shape]
    binding = session.io_binding()
    kinds = {"tensor(float)": numpy.float32, "tensor(int8)": numpy.int8, "tensor(uint8)": numpy.uint8}
    x = (numpy.random.default_rng(0).random(shape) * 100).astype(kinds[given.type])
    binding.bind_cpu_input(given.name, x)
    binding.bind_output(session.get_outputs()[0].name)
    return clock(lambda: session.run_with_iobinding(binding), seconds)


def latency(ours, args, nets):
    """Batch 1, one thread. int8 against LiteRT with XNNPACK, f32 against it or onnxruntime on the same file."""
    jobs = []
    for name in INT8:
        path = args.models / f"{name}.tflite"
        if path.exists():
            jobs.append((name, path, {"LiteRT (XNNPACK)": litert}))
    for name in ["pretrainedResnet", "kws_ref_model_float32", "vww_96_float", "ad01_fp32"]:
        path = args.models / f"{name}.tflite"
        if path.exists():
            jobs.append((name, path, {"LiteRT (XNNPACK)": litert}))
    for name, net in nets.items():
        jobs.append((f"{name} (.onnx)", net.path, {"onnxruntime": ort}))
    for name, path, peers in jobs:
        mine, theirs, bits = Figures(), Figures(), None
        for _ in range(args.rounds):
            rows, bits = ours.bench(path, "infer", [1])
            mine.add("foolproof", rows[0]["seconds"]["median"])
            for peer, measure in peers.items():
                try:
                    theirs.add(peer, measure(path, args.seconds))
                except (ValueError, RuntimeError) as error:
                    print(f"{peer} refuses {name}: {error}", file=sys.stderr)
        if theirs.rounds:
            found = compared(mine, theirs) | {"bits": bits}
            say(name, found)
            yield name, found


# --- attacks ------------------------------------------------------------------------------------------------------------------


class Cnn(nn.Module):
    """28x28x1: two convolutions of 8 and 16 filters with ReLU and max pooling, one dense layer."""

    shape = [1, 28, 28]

    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.fc = nn.Linear(784, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.c1(x)), 2)
        x = F.max_pool2d(F.relu(self.c2(x)), 2)
        return self.fc(x.flatten(1))

    def write(self, graph):
        x = graph.pool(graph.relu(graph.conv("x", self.c1)))
        x = graph.pool(graph.relu(graph.conv(x, self.c2)))
        return graph.dense(x, self.fc)


class ResNet8(nn.Module):
    """MLPerf Tiny's network for CIFAR-10, batch normalization folded."""

    shape = [3, 32, 32]

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        blocks = []
        for before, after, stride in [(16, 16, 1), (16, 32, 2), (32, 64, 2)]:
            block = nn.ModuleDict(
                {
                    "a": nn.Conv2d(before, after, 3, stride, padding=1),
                    "b": nn.Conv2d(after, after, 3, padding=1),
                }
            )
            if stride > 1:
                block["short"] = nn.Conv2d(before, after, 1, stride)
            blocks.append(block)
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            short = block["short"](x) if "short" in block else x
            x = F.relu(block["b"](F.relu(block["a"](x))) + short)
        return self.fc(x.mean((2, 3)))

    def write(self, graph):
        x = graph.relu(graph.conv("x", self.stem))
        for block in self.blocks:
            short = graph.conv(x, block["short"]) if "short" in block else x
            y = graph.conv(graph.relu(graph.conv(x, block["a"])), block["b"])
            x = graph.relu(graph.node("Add", [y, short]))
        return graph.dense(graph.node("GlobalAveragePool", [x]), self.fc)


class Writer:
    """An ONNX graph of the few layers that these networks have."""

    def __init__(self):
        self.nodes, self.constants, self.count = [], [], 0

    def node(self, kind, inputs, **attributes):
        self.count += 1
        name = f"t{self.count}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, tensor):
        name = f"w{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(tensor.detach().numpy(), name))
        return name

    def conv(self, x, layer):
        pads = [*layer.padding, *layer.padding]
        inputs = [x, self.constant(layer.weight), self.constant(layer.bias)]
        return self.node("Conv", inputs, kernel_shape=layer.kernel_size, strides=layer.stride, pads=pads)

    def relu(self, x):
        return self.node("Relu", [x])

    def pool(self, x):
        return self.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])

    def dense(self, x, layer):
        x = self.node("Flatten", [x])
        return self.node("Gemm", [x, self.constant(layer.weight), self.constant(layer.bias)], transB=1)

    def save(self, module, path):
        value = onnx.helper.make_tensor_value_info
        y = module.write(self)
        graph = onnx.helper.make_graph(
            self.nodes,
            "peer",
            [value("x", onnx.TensorProto.FLOAT, ["N", *module.shape])],
            [value(y, onnx.TensorProto.FLOAT, ["N", 10])],
            self.constants,
        )
        opset = [onnx.helper.make_opsetid("", 13)]
        onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)


class Net:
    """A network in PyTorch and in a file that both sides read."""

    def __init__(self, module, path, ours):
        self.module, self.path = module.eval().requires_grad_(False), path
        Writer().save(module, path)
        self.check(ours)

    def check(self, ours):
        """Both sides compute the same function."""
        x = torch.rand(4, *self.module.shape)
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            numpy.save(folder / "x.npy", x.numpy())
            line = [ours.args.foolproof, "infer", self.path, "--inputs", folder / "x.npy"]
            subprocess.run([*line, "--outputs", folder / "y.npy"], check=True, capture_output=True)
            mine = numpy.load(folder / "y.npy").reshape(4, -1)
        error = numpy.abs(mine - self.module(x).numpy()).max()
        if error > 1e-4:
            sys.exit(f"{self.path}: our scores and PyTorch's differ by {error}")


def torch_gradient(module, x, y):
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(F.cross_entropy(module(x), y), x)[0]


def torch_fgsm(module, x, y):
    return (x + EPSILON * torch_gradient(module, x, y).sign()).clamp(0, 1)


def torch_pgd(module, x, y):
    moved = (x + torch.empty_like(x).uniform_(-EPSILON, EPSILON)).clamp(0, 1)
    for _ in range(STEPS):
        moved = moved + 2.5 * EPSILON / STEPS * torch_gradient(module, moved, y).sign()
        moved = torch.min(torch.max(moved, x - EPSILON), x + EPSILON).clamp(0, 1)
    return moved


def torch_forward(module, x, y):
    with torch.inference_mode():
        return module(x)


def contenders(work, module):
    """What each peer does for this work, as functions of a batch and its labels."""
    plain = {"infer": torch_forward, "gradient": torch_gradient, "fgsm": torch_fgsm, "pgd-40": torch_pgd}
    found = {"PyTorch": lambda x, y: plain[work](module, x, y)}
    if work in ("fgsm", "pgd-40"):
        import foolbox
        import torchattacks

        boxed = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        theirs = {
            "fgsm": (
                foolbox.attacks.LinfFastGradientAttack(),
                torchattacks.FGSM(module, eps=EPSILON),
            ),
            "pgd-40": (
                foolbox.attacks.LinfPGD(steps=STEPS),
                torchattacks.PGD(module, eps=EPSILON, alpha=2.5 * EPSILON / STEPS, steps=STEPS),
            ),
        }[work]
        found["Foolbox"] = lambda x, y: theirs[0](boxed, x, y, epsilons=EPSILON)
        found["torchattacks"] = lambda x, y: theirs[1](x, y)
    return found


def attacks(ours, args, nets):
    for name, net in nets.items():
        for work in ["infer", "gradient", "fgsm", "pgd-40"]:
            mine = {threads: Figures() for threads in THREADS}
            theirs = {threads: Figures() for threads in THREADS}
            for _ in range(args.rounds):
                rows, _ = ours.bench(net.path, work, args.batches, max(THREADS))
                for row in rows:
                    label = f"foolproof, batch {row['batch']}"
                    mine[row["threads"]].add(label, 1 / row["per_second"])
                for threads in THREADS:
                    torch.set_num_threads(threads)
                    for peer, attack in contenders(work, net.module).items():
                        for batch in args.peer_batches:
                            x = torch.rand(batch, *net.module.shape)
                            y = net.module(x).argmax(1)
                            seconds = clock(lambda: attack(x, y), args.seconds) / batch
                            theirs[threads].add(f"{peer}, batch {batch}", seconds)
            for threads in THREADS:
                found = compared(mine[threads], theirs[threads])
                row = f"{name} {work} {threads}"
                say(row, found)
                yield row, found


# --- GANs ---------------------------------------------------------------------------------------------------------------------


def mlp_gan():
    generator = nn.Sequential(nn.Linear(64, 256), nn.LeakyReLU(0.2), nn.Linear(256, 784), nn.Tanh())
    discriminator = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.LeakyReLU(0.2), nn.Linear(256, 1)
    )
    return generator, discriminator


def dcgan():
    generator = nn.Sequential(
        nn.Linear(64, 7 * 7 * 64),
        nn.Unflatten(1, (64, 7, 7)),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 32, 4, 2, 1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 1, 4, 2, 1),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(32, 64, 4, 2, 1),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(7 * 7 * 64, 1),
    )
    return generator, discriminator


def gan_step(networks, fused):
    """One step of either player, batch 64; the generator's turn judges the samples that the discriminator has just seen."""
    generator, discriminator = networks()
    settings = {"lr": 2e-4, "betas": (0.5, 0.999), "fused": fused}
    g_adam = torch.optim.Adam(generator.parameters(), **settings)
    d_adam = torch.optim.Adam(discriminator.parameters(), **settings)
    images = torch.rand(3200, 1, 28, 28) * 2 - 1

    def step():
        real = images[torch.randint(0, len(images), (64,))]
        made = generator(torch.randn(64, 64)).view(64, 1, 28, 28)
        loss = F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(made.detach())).mean()
        d_adam.zero_grad()
        loss.backward()
        d_adam.step()
        loss = F.softplus(-discriminator(made)).mean()
        g_adam.zero_grad()
        loss.backward()
        g_adam.step()

    return step


def gans(ours, args, _):
    for work, networks in [("train-gan-mlp", mlp_gan), ("train-gan-dcgan", dcgan)]:
        mine = {threads: Figures() for threads in THREADS}
        theirs = {threads: Figures() for threads in THREADS}
        for _ in range(args.rounds):
            rows, _ = ours.bench(None, work, threads=max(THREADS))
            for row in rows:
                mine[row["threads"]].add("foolproof, batch 64", 1 / row["per_second"])
            for threads in THREADS:
                torch.set_num_threads(threads)
                for fused, label in [(None, "PyTorch"), (True, "PyTorch, fused Adam")]:
                    seconds = clock(gan_step(networks, fused), args.seconds) / 64
                    theirs[threads].add(f"{label}, batch 64", seconds)
        for threads in THREADS:
            found = compared(mine[threads], theirs[threads])
            row = f"{work} {threads}"
            say(row, found)
            yield row, found


# --- the page -----------------------------------------------------------------------------------------------------------------


def processor():
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    of = lambda key: [line.split(":", 1)[1].strip() for line in lines if line.split("\t")[0] == key]
    if not of("model name"):
        return platform.processor()
    # a virtual machine's name may hide what it is
    flags = of("flags")[0].split() if of("flags") else []
    registers = next((name for flag, name in REGISTERS if flag in flags), "neither")
    kind = f"family {of('cpu family')[0]} model {of('model')[0]}" if of("cpu family") else "family unknown"
    return f"{of('model name')[0]} ({kind}, {registers}), {len(of('model name'))} logical cores"


# the widest first
REGISTERS = [("avx512_vnni", "AVX-512 with VNNI"), ("avx512f", "AVX-512"), ("avx2", "AVX2")]


def page(results):
    versions = ", ".join(
        f"{name} {importlib.metadata.version(package)}"
        for name, package in [
            ("LiteRT", "ai-edge-litert"),
            ("onnxruntime", "onnxruntime"),
            ("PyTorch", "torch"),
            ("Foolbox", "foolbox"),
            ("torchattacks", "torchattacks"),
        ]
    )
    lines = [
        "# Speed, beside its peers",
        "",
        "Made by `python tests/oracle/bench_peers.py` (how: `tests/oracle/README.md`): the same work on the same machine, ours and theirs in",
        "turns. Times depend on the machine and on what else it does; the ratios are what is meant. A ratio of 2 is twice as fast as the",
        "fastest peer; below 1 we are slower. The ratio of bests compares the rounds that were disturbed least.",
        "",
        f"{results['machine']}; {versions}.",
    ]
    if "latency" in results:
        lines += [
            "",
            "## Latency: batch 1, one thread, microseconds",
            "",
            "| model | ours | the peer | | ratio of medians | of bests | int8 bits other than the scalar kernels' |",
            "|---|---|---|---|---|---|---|",
        ]
        for name, found in results["latency"].items():
            bits = found["bits"]
            bits = f"{bits['different']} of {bits['inputs']} inputs" if bits else ""
            a, b = found["ours"], found["theirs"]
            lines.append(
                f"| {name} | {a['median'] * 1e6:.1f} | {b['median'] * 1e6:.1f} | {b['name']} "
                f"| {found['ratio_of_medians']:.2f} | {found['ratio_of_bests']:.2f} | {bits} |"
            )
    for part, title, text in [
        (
            "attacks",
            "Attacks: images per second, each side at the batch size that suits it best",
            "Both sides read one `.onnx` file of random weights, and their scores agree. PGD does all its 40 steps on both sides.",
        ),
        (
            "gan",
            "GAN training: images per second, batch 64, one step of either player",
            "`train gan`'s own code, with data handling and Adam, on the networks of `docs/training.md`; 28x28 images.",
        ),
    ]:
        if part not in results:
            continue
        lines += [
            "",
            f"## {title}",
            "",
            text,
            "",
            "| work | threads | ours | | fastest peer | | ratio of medians | of bests |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, found in results[part].items():
            work, threads = name.rsplit(" ", 1)
            a, b = found["ours"], found["theirs"]
            short = a["name"].removeprefix("foolproof, ")
            lines.append(
                f"| {work} | {threads} | {1 / a['median']:.0f} | {short} | {1 / b['median']:.0f} | {b['name']} "
                f"| {found['ratio_of_medians']:.2f} | {found['ratio_of_bests']:.2f} |"
            )
    return "\n".join(lines) + "\n"


PARTS = {"latency": latency, "attacks": attacks, "gan": gans}


def numbers(text):
    return [int(part) for part in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--foolproof", default="target/release/foolproof")
    parser.add_argument("--models", type=pathlib.Path, required=True, help="folder of .tflite files")
    parser.add_argument("--only", default=",".join(PARTS), help="parts to measure")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="per figure and round")
    parser.add_argument("--batches", type=numbers, default=[1, 2, 4, 8, 32], help="ours")
    parser.add_argument("--peer-batches", type=numbers, default=[1, 32, 128])
    parser.add_argument("--results", type=pathlib.Path, default="target/bench_peers.json")
    parser.add_argument("--out", type=pathlib.Path, help="the page; without it nothing is written")
    args = parser.parse_args()
    torch.manual_seed(0)
    ours = Ours(args)
    results = json.loads(args.results.read_text()) if args.results.exists() else {}
    results["machine"] = processor()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        nets = {
            "cnn": Net(Cnn(), folder / "cnn.onnx", ours),
            "resnet8": Net(ResNet8(), folder / "resnet8.onnx", ours),
        }
        for part in args.only.split(","):
            if part not in PARTS:
                sys.exit(f"no part {part!r}; {', '.join(PARTS)} would be right")
            results[part] = dict(PARTS[part](ours, args, nets))
            args.results.write_text(json.dumps(results, indent=1))
    if args.out:
        args.out.write_text(page(results))


main()
