"""Measures the time for the largest eigenvalue of a Hessian, beside PyHessian's if it is installed.

Run with `make benchmark-curvature`; the table goes to `benchmarks/CURVATURE.md`. PyHessian (`pip
install torch pyhessian`) gets the same network, weights, images and number of products. Times are
taken in one process of one thread, alternating; the median over the rounds counts.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import time
from pathlib import Path
from unittest import mock

import keras
from networks import LOSS
from speed import convolutional_network, table

from losslandscape import Hessian
from losslandscape.curvature import hessian
from losslandscape.measuring.datasets import read_dataset

# Coarse, since the power method of PyHessian takes as many products, whatever it reaches.
TOLERANCE = 1e-2


def network():
    """The benchmark's convolutional network of (b) with more units, and its images."""
    model, x, y = convolutional_network(units=120)
    model.compile("sgd", LOSS)
    return model, x, y


def same_network_in_torch(model):
    # Only for the comparison, like PyHessian.
    import torch  # noqa: PLC0415
    from torch import nn  # noqa: PLC0415

    class ChannelsLast(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(ChannelsLast(), nn.Flatten(), nn.Linear(800, 120), nn.ReLU(), nn.Linear(120, 10)),
    )
    with torch.no_grad():
        for parameter, weight in zip(net.parameters(), model.get_weights(), strict=True):
            axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[weight.ndim]
            parameter.copy_(torch.tensor(weight.transpose(axes)))
    return net


def ours(model, x, y, batch_size):
    """The eigenvalue and the number of products for it, everything included."""
    counted = mock.patch.object(hessian, "mean_derivative", wraps=hessian.mean_derivative)
    with counted as products:
        (value,), _ = Hessian(model, x, y, batch_size=batch_size).eigenvalues(
            tolerance=TOLERANCE, seed=0
        )
    return value, products.call_count


def pyhessians(model, x, y, batch_size):
    """For each of PyHessian's ways, a function of a number of products that returns the value."""
    import torch  # noqa: PLC0415
    from pyhessian import hessian  # noqa: PLC0415

    net, loss = same_network_in_torch(model), torch.nn.CrossEntropyLoss()
    x, y = torch.tensor(x.transpose(0, 3, 1, 2)), torch.tensor(y)
    batches = list(zip(x.split(batch_size), y.split(batch_size), strict=True))

    def way(**data):
        def largest(products):
            torch.manual_seed(0)
            # The gradient, which the second way keeps, is computed here.
            operator = hessian(net, loss, cuda=False, **data)
            return operator.eigenvalues(maxIter=products, tol=0)[0][0]

        return largest

    return {
        "PyHessian, the same batches": way(dataloader=batches),
        "PyHessian, one batch whose gradient it keeps": way(data=(x, y)),
    }


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(0)
    model, x, y = network()
    batch_size = read_dataset(model, (x, y)).batch_size
    has_peer = all(map(importlib.util.find_spec, ("torch", "pyhessian")))
    peers = pyhessians(model, x, y, batch_size) if has_peer else {}
    seconds, values = {}, {}
    for _ in range(arguments.rounds):
        name = f"ours on {keras.backend.backend()}"
        spent, (values[name], products) = timed(ours, model, x, y, batch_size)
        seconds.setdefault(name, []).append(spent)
        for name, peer in peers.items():
            spent, values[name] = timed(peer, products)
            seconds.setdefault(name, []).append(spent)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    least = next(iter(medians.values()))
    rows = [
        (name, f"{median:.1f}", f"{1000 * median / products:.0f}", f"{least / median:.2f}",
         f"{values[name]:.4g}")
        for name, median in medians.items()
    ]  # fmt: skip
    packages = ["tensorflow", "keras", *(["torch", "pyhessian"] if has_peer else [])]
    head = HEAD.format(
        machine=f"{platform.machine()}, {os.cpu_count()} cores, no GPU",
        versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages),
        rounds=arguments.rounds,
        parameters=f"{model.count_params():,}",
        samples=f"{len(x):,}",
        batch_size=batch_size,
        products=products,
    )
    report = f"{head}\n\n{table(HEADER, rows)}\n"
    (Path(__file__).parent / "CURVATURE.md").write_text(report)
    print(report)


HEAD = """# Curvature

Made by `make benchmark-curvature` on {machine}; {versions}. One process of one thread,
alternating methods, medians of {rounds} rounds. The largest eigenvalue of the Hessian of a
convolutional network of {parameters} parameters on {samples} images of 28x28, in batches of
{batch_size}, by {products} products with vectors. Ours includes making its graph and checking its
derivatives."""
HEADER = ("method", "seconds", "milliseconds per product", "ours / this", "largest eigenvalue")


if __name__ == "__main__":
    main()
