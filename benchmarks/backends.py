"""Measures the time per point on the backend that `KERAS_BACKEND` names; prints it as JSON.

`benchmarks/speed.py` calls this for every backend that is installed.
"""

import argparse
import json
import statistics

import numpy as np
from speed import CASES, evaluated, naive, second_call, timed

from losslandscape import evaluate_surface


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", help="a part of the name of a case, such as (a)")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    build, *_ = next(case for name, case in CASES.items() if arguments.case in name)
    model, x, y, directions = evaluated(build)
    axis = np.linspace(-1, 1, 3)
    grid = [(alpha, beta) for beta in axis for alpha in axis]

    def surface(engine):
        return lambda: evaluate_surface(
            model, x, y, 7, directions=directions, engine=engine, verbose=0
        )

    ways = {
        "naive": (lambda: naive(model, x, y, directions, grid), 9),
        # With the center at the end.
        "evaluate": (surface("evaluate"), 50),
        "compiled": (surface("compiled"), 50),
    }
    for way, _ in ways.values():
        way()
    seconds = {
        name: statistics.median(timed(way) for _ in range(arguments.rounds)) / number
        for name, (way, number) in ways.items()
    }
    seconds["first"], seconds["second"] = second_call(build)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
