"""int8 latency, batch 1, one thread: this project's beside LiteRT's with XNNPACK, in turns on one machine.

    python tests/oracle/latency_litert.py target/release/examples/latency MODEL.tflite... [--rounds N]

One line per model: the best single run and the median of each side over all rounds, microseconds, their ratio, and how many answers of
the fast kernels were not the scalar ones'.
"""

import argparse
import subprocess
import time

import numpy
from ai_edge_litert.interpreter import Interpreter


def litert(path, seconds=0.5):
    interpreter = Interpreter(model_path=path, num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    random = numpy.random.default_rng(0)
    x = random.integers(-128, 128, given["shape"]).astype(given["dtype"])
    interpreter.set_tensor(given["index"], x)
    # the native call, without what the Python class adds
    invoke = interpreter._interpreter.Invoke
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        invoke()
        times.append((time.perf_counter() - start) * 1e6)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("latency")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print("| model | ours best | median | LiteRT XNNPACK best | median | ratio of bests | of medians | other bits |")
    print("|---|---|---|---|---|---|---|---|")
    for path in args.models:
        ours, theirs = [], []
        for _ in range(args.rounds):
            run = subprocess.run([args.latency, path], capture_output=True, text=True, check=True)
            name, best, median, _, _, different = run.stdout.splitlines()[1].split()
            ours.append((float(best), float(median), int(different)))
            try:
                times = litert(path)
            except ValueError:
                break
            theirs.append((min(times), float(numpy.median(times))))
        if not theirs:
            print(f"| {name} | {ours[0][0]:.1f} | {ours[0][1]:.1f} | LiteRT refuses the file | | | | {ours[0][2]} |")
            continue
        best = min(o[0] for o in ours), min(t[0] for t in theirs)
        median = [float(numpy.median([v[1] for v in side])) for side in (ours, theirs)]
        different = max(o[2] for o in ours)
        print(
            f"| {name} | {best[0]:.1f} | {median[0]:.1f} | {best[1]:.1f} | {median[1]:.1f} "
            f"| {best[0] / best[1]:.2f} | {median[0] / median[1]:.2f} | {different} |",
            flush=True,
        )


main()
