"""Measures the time per point on the backends of Keras, on a GPU where they find one.

Run with `make benchmark`; the table goes to `BACKENDS-CPU.md` or `BACKENDS-GPU.md`, beside this
file. Backends that are not installed are left out. Each is measured in a process of its own.
"""

import argparse
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
from speed import CASES, evaluated, gpus, naive, start_of_call, table, timed, trained_digits

from losslandscape import evaluate_surface, random_directions

BACKENDS = ("tensorflow", "jax", "torch")
WAYS = ("naive", "evaluate", "compiled")
HEADER = ("case", "backend", *WAYS, "naive / compiled", "start")
HEAD = """# The backends of Keras

Made by `benchmarks/backends.py` on {machine}, {cores} cores, {device}; Keras {keras}, {versions};
rounds: {rounds}. Milliseconds a point, over up to 21x21 points (*naive*: 9), and what a call
takes before its first point, in seconds. *naive* is `set_weights`
with NumPy and `model.evaluate` on NumPy arrays. Single precision throughout, without TF32."""
TORCH = """## The digits network against a loop in PyTorch, in milliseconds a point

21x21 points on the same device, without the start of the call. *PyTorch* is a loop over the points
with all data in one batch in the device's memory."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default="abcd", help="which of the cases, for example ab")
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--one", action="store_true", help="measure here, and print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.cases, arguments.rounds)))
        return
    backends = [name for name in arguments.backends if importlib.util.find_spec(name)]
    found = [
        (case, name, in_own_process(case, name, arguments.rounds))
        for case in CASES
        if case[1] in arguments.cases
        for name in backends
    ]
    write(found, arguments.rounds)


def in_own_process(case, backend, rounds):
    command = [sys.executable, __file__, "--one", f"--cases={case[1]}", f"--rounds={rounds}"]
    environment = os.environ | {"KERAS_BACKEND": backend}
    # JAX would take the memory of the GPU that PyTorch's loop needs.
    environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    # On GPUs, some backends round the factors of products by default, and some do not.
    environment |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "NVIDIA_TF32_OVERRIDE": "0"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    *_, last = done.stdout.splitlines()
    print(case, backend, last.decode(), flush=True)
    return json.loads(last)


def measure(letter, rounds):
    """What one backend needs for one case."""
    build, per_axis, _ = next(case for name, case in CASES.items() if name[1] == letter)
    model, x, y, directions = evaluated(build)
    axis = np.linspace(-1, 1, 3)
    grid = [(alpha, beta) for beta in axis for alpha in axis]

    def surface(engine, number):
        options = {"directions": directions, "engine": engine, "verbose": 0}
        return timed(lambda: evaluate_surface(model, x, y, number, **options))

    def per_point(engine, number):
        """Without the start of a call, which takes as long as hundreds of points of the digits."""
        return (surface(engine, number) - surface(engine, 3)) / (number**2 - 9)

    ways = {
        "naive": lambda: timed(lambda: naive(model, x, y, directions, grid)) / 9,
        "evaluate": lambda: per_point("evaluate", 7),
        "compiled": lambda: per_point("compiled", per_axis),
    }
    for way in ways.values():
        way()
    found = {name: statistics.median(way() for _ in range(rounds)) for name, way in ways.items()}
    found["start"] = start_of_call(build)
    found["device"], found["version"] = device(), version()
    if letter == "a" and importlib.util.find_spec("torch"):
        found["torch"] = against_torch(rounds)
    return found


def against_torch(rounds):
    """A surface of 21x21 points of the digits network, without its start, and PyTorch's loop."""
    model, x, y = trained_digits()
    directions = random_directions(model, 2, seed=0)
    axis = np.linspace(-1, 1, 21)
    points = [(alpha, beta) for beta in axis for alpha in axis]
    options = {"directions": directions, "engine": "compiled", "verbose": 0}
    surface = evaluate_surface(model, x, y, 21, **options)
    losses, accuracies = np.transpose(torch_loop(model, x, y, directions, points))
    # The same network, at the same points.
    np.testing.assert_allclose(losses, surface.values["loss"].ravel(), rtol=1e-4)
    np.testing.assert_allclose(accuracies, surface.values["accuracy"].ravel(), atol=2e-3)
    ours, theirs = [], []
    for _ in range(rounds):
        start = timed(lambda: evaluate_surface(model, x, y, 3, **options))
        ours.append((timed(lambda: evaluate_surface(model, x, y, 21, **options)) - start) / 432)
        theirs.append(timed(lambda: torch_loop(model, x, y, directions, points)) / 441)
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    return f"{1000 * ours:.3g}", f"{1000 * theirs:.3g}", f"{ours / theirs:.2f}"


def torch_loop(model, x, y, directions, points):
    """The reference implementation's loop, as a user of PyTorch would write it for the digits.

    The data are one batch in memory; its own loader, with its batches, takes much longer.
    """
    import torch  # noqa: PLC0415, only where it is installed

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    network.to(device)
    arrays = [model.get_weights(), *directions]
    # Torch has its kernels the other way round.
    weights, *steps = (
        [torch.tensor(np.array(part).T, device=device) for part in each] for each in arrays
    )
    inputs, targets = torch.tensor(x, device=device), torch.tensor(y, device=device)
    criterion = torch.nn.CrossEntropyLoss()
    values = []
    with torch.no_grad():
        for alpha, beta in points:
            for parameter, weight, one, other in zip(
                network.parameters(), weights, *steps, strict=True
            ):
                parameter.data = weight + alpha * one + beta * other
            outputs = network(inputs)
            correct = outputs.argmax(1).eq(targets).sum().item()
            values.append((criterion(outputs, targets).item(), correct / len(targets)))
    return values


def device():
    """What the backend computes on."""
    if keras.backend.backend() == "tensorflow":
        return gpus()
    if keras.backend.backend() == "torch":
        import torch  # noqa: PLC0415, only where it is installed

        return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    import jax  # noqa: PLC0415, only where it is installed

    kind = jax.devices()[0].device_kind
    return "no GPU" if kind == "cpu" else kind


def version():
    name = keras.backend.backend()
    return f"{name} {importlib.import_module(name).__version__}"


def write(found, rounds):
    devices = [values["device"] for _, _, values in found]
    head = HEAD.format(
        device=", ".join(dict.fromkeys(devices)),
        cores=os.cpu_count(),
        machine=platform.machine(),
        keras=keras.__version__,
        versions=", ".join(dict.fromkeys(values["version"] for _, _, values in found)),
        rounds=rounds,
    )
    sections = [head, table(HEADER, [row(*each) for each in found])]
    peers = [(backend, *values["torch"]) for _, backend, values in found if "torch" in values]
    if peers:
        sections += [TORCH, table(("backend", "losslandscape", "PyTorch", "ratio"), peers)]
    kind = "CPU" if set(devices) == {"no GPU"} else "GPU"
    text = "\n\n".join(sections) + "\n"
    Path(__file__).with_name(f"BACKENDS-{kind}.md").write_text(text)
    print(text)


def row(case, backend, values):
    milliseconds = [f"{1000 * values[way]:.3g}" for way in WAYS]
    ratio = f"{values['naive'] / values['compiled']:.1f}"
    return (case, backend, *milliseconds, ratio, f"{values['start']:.2f}")


if __name__ == "__main__":
    main()
