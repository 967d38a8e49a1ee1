"""Types: one name for each kind of value that several calls take or return."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

# A function that a decorator takes and, with the same signature, returns.
Call = TypeVar("Call", bound=Callable)

# What Keras accepts as data: arrays, tensors, `tf.data.Dataset`, `PyDataset`, and tuples of them.
Data: TypeAlias = Any
FilePath: TypeAlias = str | PathLike[str]

Array: TypeAlias = NDArray[np.floating]
# A float for one, an array for several: `float | Array` would have to be narrowed at each use.
FloatOrArray: TypeAlias = Any
Direction: TypeAlias = list[Array]
Directions: TypeAlias = Sequence[Sequence[ArrayLike]] | FilePath
# Names and patterns of layers, or the layers themselves.
Layers: TypeAlias = str | keras.layers.Layer | Sequence[str | keras.layers.Layer]
Normalize: TypeAlias = Literal["filter", "layer", "weight"] | None
Ignore: TypeAlias = Literal["biasbn"] | None

# Along one axis, or along both.
Pair: TypeAlias = tuple[float, float]
Points: TypeAlias = int | tuple[int, int]
Extent: TypeAlias = Pair | tuple[Pair, Pair]

PlotType: TypeAlias = Literal["levels", "3d"]
Scale: TypeAlias = Literal["linear", "log"]
# For contours, which may hide what lies between them: "auto" chooses by the values.
ContourScale: TypeAlias = Literal["auto", "linear", "log"]
Statistics: TypeAlias = Literal["interpolate", "estimate"]
# Of a barrier between two models.
Definition: TypeAlias = Literal["chord", "mean"]
Mode: TypeAlias = Literal["min", "max"]

Engine: TypeAlias = Literal["auto", "evaluate", "compiled"]
Verbose: TypeAlias = Literal["auto", 0, 1, 2]


class Display(Protocol):
    """Stands for a `LossDisplay`, which cannot be imported here."""

    @property
    def lines(self) -> list:
        """The lines in it."""

    @property
    def surfaces(self) -> list:
        """The surfaces in it."""
