"""Types of the public interface, on one page; `losslandscape.py` and its modules have the code.

Installed as `losslandscape/__init__.pyi`. A test compares every signature with the code.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any, Literal, NamedTuple, Self, TypeAlias, overload

import keras
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

# What Keras accepts as data: arrays, tensors, `tf.data.Dataset`, `PyDataset`, and tuples of them.
_Data: TypeAlias = Any
_Array: TypeAlias = NDArray[np.floating]
_Direction: TypeAlias = list[_Array]
_Directions: TypeAlias = Sequence[Sequence[ArrayLike]]
_Path: TypeAlias = str | PathLike[str]
_History: TypeAlias = WeightHistory | _Path | Sequence[_Path | keras.Model]
_Layers: TypeAlias = str | keras.layers.Layer | Sequence[str | keras.layers.Layer]
_Points: TypeAlias = int | tuple[int, int]
_Pair: TypeAlias = tuple[float, float]
_Extent: TypeAlias = _Pair | tuple[_Pair, _Pair]

_PlotType: TypeAlias = Literal["levels", "3d"]
_Scale: TypeAlias = Literal["linear", "log"]
_ContourScale: TypeAlias = Literal["auto", "linear", "log"]
_Engine: TypeAlias = Literal["auto", "evaluate", "compiled"]
_Verbose: TypeAlias = Literal["auto", 0, 1, 2]
_Normalize: TypeAlias = Literal["filter", "layer", "weight"] | None
_Ignore: TypeAlias = Literal["biasbn"] | None
_Statistics: TypeAlias = Literal["interpolate", "estimate"]
_Definition: TypeAlias = Literal["chord", "mean"]
_Mode: TypeAlias = Literal["min", "max"]

_Lines: TypeAlias = LossLine | LossDisplay | Sequence[LossLine]
_Surface: TypeAlias = LossSurface | LossDisplay
_Surfaces: TypeAlias = _Surface | Sequence[LossSurface]

__all__: list[str]
__version__: str

# Draw a model's landscape
def plot_loss(
    model: keras.Model,
    datasets: _Data,
    dataset_labels: str | Sequence[str] | None = None,
    number_of_points: int = 21,
    *,
    directions: _Directions | None = None,
    number_of_directions: int = 1,
    layers: _Layers | None = None,
    extent: _Pair | Literal["auto"] = (-1.0, 1.0),
    metric: str = "loss",
    scale: _Scale = "linear",
    seed: int | None = None,
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    tolerance: float | None = None,
    ax: Axes | None = None,
    path: _Path | None = None,
    show: bool = False,
    verbose: _Verbose = "auto",
) -> LossDisplay: ...
def plot_loss_3D(  # noqa: N802, the name is the interface's
    model: keras.Model,
    plot_types: _PlotType | Sequence[_PlotType],
    x: _Data,
    y: _Data = None,
    number_of_points: _Points = 21,
    *,
    dataset_labels: str | Sequence[str] | None = None,
    directions: _Directions | None = None,
    layers: _Layers | None = None,
    extent: _Extent | Literal["auto"] = (-1.0, 1.0),
    metric: str | Sequence[str] = "loss",
    scale: _ContourScale = "auto",
    seed: int | None = None,
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    tolerance: float | None = None,
    ax: Axes | Sequence[Axes] | Mapping[str, Axes | Sequence[Axes]] | None = None,
    path: _Path | None = None,
    show: bool = False,
    verbose: _Verbose = "auto",
    **style: Any,
) -> LossDisplay: ...

class LossDisplay:
    lines: list[LossLine]
    surfaces: list[LossSurface]
    axes: dict[str, Any]
    def __init__(
        self,
        lines: list[LossLine] = ...,
        surfaces: list[LossSurface] = ...,
        axes: dict[str, Any] = ...,
    ) -> None: ...
    # `None` after `plot_loss`; a `LossSurface | None` would have to be narrowed at every use.
    @property
    def line(self) -> LossLine | None: ...
    @property
    def surface(self) -> LossSurface: ...
    @property
    def figures(self) -> dict[str, Figure]: ...
    def save(self, path: _Path) -> None: ...

class _TrajectoryDisplay(LossDisplay):
    @property
    def surface(self) -> LossTrajectory: ...

# Training, and several models
def plot_trajectory(
    model: keras.Model,
    history: _History | Mapping[str, _History],
    x: _Data,
    y: _Data = None,
    number_of_points: _Points = 21,
    *,
    ignore: _Ignore = None,
    metric: str = "loss",
    scale: _ContourScale = "auto",
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    path: _Path | None = None,
    show: bool = False,
    verbose: _Verbose = "auto",
) -> _TrajectoryDisplay: ...

class WeightHistory(keras.callbacks.Callback):
    def __init__(
        self, folder: _Path, every: Literal["epoch"] | int = "epoch", append: bool = False
    ) -> None: ...

class LandscapeLogger(keras.callbacks.Callback):
    def __init__(
        self,
        measures: Sequence[str] | Mapping[str, Callable[[keras.Model], float]] = ...,
        x: _Data = None,
        y: _Data = None,
        *,
        every: int = 1,
        live: bool = False,
        number_of_probes: int = 10,
        number_of_directions: int = 5,
        rise: float = 1.0,
        tolerance: float = 0.01,
        seed: int | None = 0,
        batch_size: int | None = None,
    ) -> None: ...
    @property
    def curvature(self) -> TrainingCurvature | None: ...

def training_curvature(
    model: keras.Model,
    history: _History,
    x: _Data,
    y: _Data = None,
    measures: Sequence[str] = ...,
    *,
    learning_rate: float | Callable[[float], float] | None = None,
    number_of_probes: int = 10,
    number_of_directions: int = 5,
    rise: float = 1.0,
    tolerance: float = 0.01,
    seed: int | None = None,
    batch_size: int | None = None,
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    verbose: _Verbose = "auto",
) -> TrainingCurvature: ...
def plot_training_curvature(
    curvature: TrainingCurvature,
    ax: Mapping[str, Axes] | None = None,
    *,
    scale: _Scale = "linear",
) -> dict[str, Axes]: ...

class TrainingCurvature(_Saved):
    times: _Array
    values: dict[str, _Array]
    thresholds: _Array
    center: dict[str, float]
    metadata: dict[str, Any]
    def __init__(
        self,
        times: _Array,
        values: dict[str, _Array],
        thresholds: _Array,
        center: dict[str, float],
        metadata: dict[str, Any],
    ) -> None: ...
    @property
    def axes(self) -> tuple[_Array, ...]: ...
    @property
    def missing(self) -> NDArray[np.bool]: ...
    @property
    def interpolated(self) -> NDArray[np.bool]: ...
    @property
    def missing_numbers(self) -> list[int]: ...
    @property
    def models(self) -> _Array: ...
    @property
    def measures(self) -> list[str]: ...

def read_history(model: keras.Model, history: _History) -> tuple[list[str], list[list[_Array]]]: ...
def evaluate_trajectory(
    model: keras.Model,
    history: _History | Mapping[str, _History],
    x: _Data,
    y: _Data = None,
    number_of_points: _Points = 21,
    *,
    ignore: _Ignore = None,
    margin: float = 0.2,
    metric: str = "loss",
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    verbose: _Verbose = "auto",
) -> LossTrajectory: ...
def plot_interpolation(
    model: keras.Model,
    other: keras.Model,
    datasets: _Data,
    dataset_labels: str | Sequence[str] | None = None,
    number_of_points: int = 41,
    *,
    extent: _Pair = (-0.5, 1.5),
    statistics: _Statistics = "interpolate",
    metric: str = "loss",
    scale: _Scale = "linear",
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    path: _Path | None = None,
    show: bool = False,
    verbose: _Verbose = "auto",
) -> LossDisplay: ...
def evaluate_interpolation(
    model: keras.Model,
    other: keras.Model,
    datasets: _Data,
    number_of_points: int = 41,
    *,
    extent: _Pair = (-0.5, 1.5),
    statistics: _Statistics = "interpolate",
    metric: str = "loss",
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    verbose: _Verbose = "auto",
) -> list[LossLine]: ...
def evaluate_plane(
    models: Sequence[keras.Model],
    x: _Data,
    y: _Data = None,
    number_of_points: _Points = 21,
    *,
    extent: _Extent = (-0.5, 1.5),
    statistics: _Statistics = "interpolate",
    metric: str = "loss",
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    verbose: _Verbose = "auto",
) -> LossSurface: ...
def evaluate_barriers(
    models: Sequence[keras.Model],
    x: _Data,
    y: _Data = None,
    number_of_points: int = 11,
    *,
    statistics: _Statistics = "interpolate",
    metric: str = "loss",
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    verbose: _Verbose = "auto",
) -> LossBarriers: ...
def fit_curve(
    model: keras.Model,
    other: keras.Model,
    x: _Data,
    y: _Data = None,
    *,
    optimizer: str | keras.optimizers.Optimizer = "adam",
    epochs: int = 20,
    batch_size: int | None = None,
    seed: int | None = None,
    verbose: _Verbose = "auto",
) -> keras.Model: ...
def evaluate_curve(
    model: keras.Model,
    other: keras.Model,
    control: keras.Model,
    datasets: _Data,
    number_of_points: int = 21,
    *,
    statistics: _Statistics = "estimate",
    metric: str = "loss",
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    verbose: _Verbose = "auto",
) -> list[LossLine]: ...

# Measure without drawing
def evaluate_line(
    model: keras.Model, x: _Data, y: _Data = None, number_of_points: int = 21, **options: Any
) -> LossLine: ...
def evaluate_lines(
    model: keras.Model,
    datasets: _Data,
    number_of_points: int = 21,
    *,
    directions: _Directions | None = None,
    number_of_directions: int = 1,
    layers: _Layers | None = None,
    extent: _Pair | Literal["auto"] = (-1.0, 1.0),
    metric: str = "loss",
    seed: int | None = None,
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    tolerance: float | None = None,
    verbose: _Verbose = "auto",
) -> list[LossLine]: ...
def evaluate_surface(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    number_of_points: _Points = 21,
    *,
    directions: _Directions | None = None,
    layers: _Layers | None = None,
    extent: _Extent | Literal["auto"] = (-1.0, 1.0),
    metric: str | Sequence[str] = "loss",
    seed: int | None = None,
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    tolerance: float | None = None,
    verbose: _Verbose = "auto",
) -> LossSurface: ...
def evaluate_surfaces(
    model: keras.Model,
    datasets: _Data,
    number_of_points: _Points = 21,
    *,
    directions: _Directions | None = None,
    layers: _Layers | None = None,
    extent: _Extent | Literal["auto"] = (-1.0, 1.0),
    metric: str | Sequence[str] = "loss",
    seed: int | None = None,
    batch_size: int | None = None,
    engine: _Engine = "auto",
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    tolerance: float | None = None,
    verbose: _Verbose = "auto",
) -> list[LossSurface]: ...

# Values: saved, loaded, drawn again
class _Saved:
    def save(self, path: _Path) -> None: ...
    @classmethod
    def load(cls, path: _Path) -> Self: ...
    def to_pandas(self) -> pd.DataFrame: ...
    def to_xarray(self) -> xr.Dataset: ...

class _Landscape(_Saved):
    alphas: _Array
    values: dict[str, _Array]
    center: dict[str, float]
    metadata: dict[str, Any]
    @property
    def axes(self) -> tuple[_Array, ...]: ...
    @property
    def missing(self) -> NDArray[np.bool]: ...
    @property
    def interpolated(self) -> NDArray[np.bool]: ...
    @property
    def missing_numbers(self) -> list[int]: ...
    @property
    def models(self) -> _Array: ...

class LossLine(_Landscape):
    def __init__(
        self,
        alphas: _Array,
        values: dict[str, _Array],
        center: dict[str, float],
        metadata: dict[str, Any],
    ) -> None: ...
    @property
    def axis_names(self) -> tuple[str]: ...

class LossSurface(_Landscape):
    betas: _Array
    def __init__(
        self,
        alphas: _Array,
        betas: _Array,
        values: dict[str, _Array],
        center: dict[str, float],
        metadata: dict[str, Any],
    ) -> None: ...
    @property
    def axis_names(self) -> tuple[str, str]: ...
    def slice(self, *, alpha: float | None = None, beta: float | None = None) -> LossLine: ...

class LossTrajectory(LossSurface):
    path: _Array
    explained: _Array
    distances: _Array
    plane_values: dict[str, _Array]
    true_values: dict[str, _Array]
    def __init__(
        self,
        alphas: _Array,
        betas: _Array,
        values: dict[str, _Array],
        center: dict[str, float],
        metadata: dict[str, Any],
        path: _Array,
        explained: _Array,
        distances: _Array,
        plane_values: dict[str, _Array],
        true_values: dict[str, _Array],
    ) -> None: ...
    @property
    def runs(self) -> dict[str, slice[int, int, None]]: ...
    @property
    def times(self) -> _Array: ...
    @property
    def unit(self) -> str: ...

class LossBarriers(_Landscape):
    def __init__(
        self,
        alphas: _Array,
        values: dict[str, _Array],
        center: dict[str, float],
        metadata: dict[str, Any],
    ) -> None: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def pairs(self) -> list[tuple[int, int]]: ...
    def line(self, first: int, second: int) -> LossLine: ...

# Draw what was measured
def plot_line(
    lines: _Lines,
    ax: Axes | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    metric: str = "loss",
    scale: _Scale = "linear",
    figsize: _Pair | None = None,
) -> Axes: ...
@overload
def plot_levels(
    surfaces: LossSurface,
    ax: Axes | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    metric: str = "loss",
    scale: _ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    figsize: _Pair | None = None,
) -> Axes: ...
@overload
def plot_levels(
    surfaces: LossDisplay | Sequence[LossSurface],
    ax: Axes | Sequence[Axes] | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    metric: str = "loss",
    scale: _ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    figsize: _Pair | None = None,
) -> Any: ...
@overload
def plot_surface(
    surfaces: LossSurface,
    ax: Axes | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    metric: str = "loss",
    scale: _Scale = "linear",
    limits: _Pair | None = None,
    cmap: str | Colormap = "viridis",
    view: _Pair | None = None,
    axes: bool = True,
    figsize: _Pair | None = None,
) -> Axes: ...
@overload
def plot_surface(
    surfaces: LossDisplay | Sequence[LossSurface],
    ax: Axes | Sequence[Axes] | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    metric: str = "loss",
    scale: _Scale = "linear",
    limits: _Pair | None = None,
    cmap: str | Colormap = "viridis",
    view: _Pair | None = None,
    axes: bool = True,
    figsize: _Pair | None = None,
) -> Any: ...
def plot_metrics(
    lines: _Lines, *, labels: str | Sequence[str] | None = None, scale: _Scale = "linear"
) -> dict[str, Axes]: ...
def plot_path(
    trajectory: LossTrajectory | LossDisplay,
    ax: Axes | None = None,
    *,
    metric: str = "loss",
    scale: _ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    figsize: _Pair | None = None,
) -> Axes: ...
def plot_path_fidelity(
    trajectory: LossTrajectory | LossDisplay,
    ax: Axes | None = None,
    *,
    metric: str = "loss",
    scale: _Scale = "linear",
    figsize: _Pair | None = None,
) -> Axes: ...
def animate_path(
    trajectory: LossTrajectory | LossDisplay,
    path: _Path,
    *,
    metric: str = "loss",
    scale: _ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    fps: float = 10,
) -> None: ...
def animate_surface(
    surface: _Surface,
    path: _Path,
    *,
    metric: str = "loss",
    scale: _Scale = "linear",
    limits: _Pair | None = None,
    cmap: str | Colormap = "viridis",
    axes: bool = True,
    fps: float = 20,
) -> None: ...
def plot_barriers(
    barriers: LossBarriers,
    ax: Axes | None = None,
    *,
    labels: Sequence[str] | None = None,
    metric: str = "loss",
    definition: _Definition = "chord",
    mode: _Mode = "min",
    cmap: str | Colormap = "viridis",
    figsize: _Pair | None = None,
) -> Axes: ...
def plot_curve(
    surface: _Surface,
    ax: Axes | None = None,
    *,
    metric: str = "loss",
    scale: _ContourScale = "auto",
    levels: ArrayLike | None = None,
    cmap: str | Colormap = "viridis",
    figsize: _Pair | None = None,
) -> Axes: ...

# Directions
def random_directions(
    model: keras.Model,
    number: int = 1,
    *,
    normalize: _Normalize = "filter",
    ignore: _Ignore = "biasbn",
    layers: _Layers | None = None,
    seed: int | None = None,
) -> list[_Direction]: ...
def direction_between(model: keras.Model, other: keras.Model) -> _Direction: ...
def match_weights(model: keras.Model, other: keras.Model) -> list[_Array]: ...
def gradient_direction(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    *,
    normalize: _Normalize = "filter",
    ignore: _Ignore | Literal["auto"] = "auto",
    batch_size: int | None = None,
) -> _Direction: ...
def worst_direction(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    radius: float = 0.1,
    steps: int = 10,
    *,
    normalize: _Normalize = "filter",
    ignore: _Ignore | Literal["auto"] = "auto",
    seed: int | None = None,
    batch_size: int | None = None,
    verbose: _Verbose = "auto",
) -> _Direction: ...
def last_step(model: keras.Model, history: _History) -> _Direction: ...

class _Filters(NamedTuple):
    path: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None
    number: int

def filters(model: keras.Model) -> list[_Filters]: ...
def print_filters(model: keras.Model, print_fn: Callable[[str], object] = ...) -> None: ...
def register_filters(
    layer_class: type[keras.layers.Layer], **weights: int | tuple[int, ...] | None
) -> None: ...

# Curvature
def hessian_eigenvalues(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    number: int = 1,
    which: Literal["largest", "smallest", "magnitude", "both"] = "largest",
    *,
    normalize: _Normalize = None,
    ignore: _Ignore | Literal["auto"] = "auto",
    layers: _Layers | None = None,
    tolerance: float = 1e-4,
    seed: int | None = None,
    batch_size: int | None = None,
    verbose: _Verbose = "auto",
) -> tuple[_Array, list[_Direction]]: ...
def hessian_spectrum(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    number_of_probes: int = 5,
    steps: int = 80,
    *,
    normalize: _Normalize = None,
    ignore: _Ignore | Literal["auto"] = "auto",
    layers: _Layers | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    verbose: _Verbose = "auto",
) -> Spectrum: ...

class Spectrum(_Saved):
    eigenvalues: _Array
    shares: _Array
    metadata: dict[str, Any]
    def __init__(self, eigenvalues: _Array, shares: _Array, metadata: dict[str, Any]) -> None: ...

def plot_spectrum(
    spectrum: Spectrum,
    ax: Axes | None = None,
    *,
    width: float | None = None,
    figsize: _Pair | None = None,
) -> Axes: ...
def hessian_trace(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    number_of_probes: int = 30,
    *,
    normalize: _Normalize = None,
    ignore: _Ignore | Literal["auto"] = "auto",
    layers: _Layers | None = None,
    seed: int | None = None,
    batch_size: int | None = None,
    verbose: _Verbose = "auto",
) -> Estimate: ...
def layer_curvature(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    number_of_probes: int = 30,
    *,
    normalize: _Normalize = None,
    ignore: _Ignore | Literal["auto"] = "auto",
    layers: _Layers | None = None,
    tolerance: float = 1e-3,
    seed: int | None = None,
    batch_size: int | None = None,
    verbose: _Verbose = "auto",
) -> LayerCurvature: ...

class LayerCurvature(_Saved):
    largest: _Array
    traces: _Array
    metadata: dict[str, Any]
    def __init__(self, largest: _Array, traces: _Array, metadata: dict[str, Any]) -> None: ...

def plot_layers(
    curvature: LayerCurvature,
    ax: Axes | None = None,
    *,
    metric: Literal["trace", "largest"] = "trace",
    figsize: _Pair | None = None,
) -> Axes: ...
def hessian_product(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    *,
    normalize: _Normalize = None,
    ignore: _Ignore | Literal["auto"] = "auto",
    layers: _Layers | None = None,
    batch_size: int | None = None,
) -> Callable[[Sequence[ArrayLike]], _Direction]: ...
def directional_curvature(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    *,
    directions: _Directions,
    batch_size: int | None = None,
    verbose: _Verbose = "auto",
) -> _Array: ...
def evaluate_convexity(
    model: keras.Model,
    x: _Data,
    y: _Data = None,
    number_of_points: _Points = 11,
    *,
    directions: _Directions | None = None,
    layers: _Layers | None = None,
    ignore: _Ignore = None,
    extent: _Extent = (-1.0, 1.0),
    seed: int | None = None,
    tolerance: float = 0.01,
    batch_size: int | None = None,
    executor: Executor | None = None,
    checkpoint: _Path | None = None,
    verbose: _Verbose = "auto",
) -> LossSurface: ...
def plot_convexity(
    surfaces: LossSurface | LossDisplay | Sequence[LossSurface],
    ax: Axes | Sequence[Axes] | None = None,
    *,
    labels: str | Sequence[str] | None = None,
    cmap: str | Colormap = "viridis",
    figsize: _Pair | None = None,
) -> Any: ...

# Basins of a surface
def persistence(surface: _Surface, metric: str = "loss") -> list[Basin]: ...

class Basin(NamedTuple):
    birth: float
    death: float
    position: tuple[float, float]
    saddle: float
    @property
    def depth(self) -> float: ...

def plot_persistence(
    surface: _Surface,
    ax: Axes | None = None,
    *,
    metric: str = "loss",
    figsize: _Pair | None = None,
) -> Axes: ...
def number_of_basins(surface: _Surface, depth: float = 0.0, metric: str = "loss") -> int: ...
def saddle_minimum_distance(surface: _Surface, metric: str = "loss") -> float: ...

# Single numbers
def report(
    measured: LossLine | LossSurface | LossDisplay,
    metric: str = "loss",
    *,
    expected: Mapping[str, float] | None = None,
    directions: _Directions | None = None,
    curvature: Spectrum | None = None,
) -> list[Finding]: ...

class Finding(NamedTuple):
    check: str
    value: float
    warning: str | None = None

def half_widths(
    line: LossLine | LossDisplay, rise: float = 1.0, metric: str = "loss"
) -> _Array: ...
def asymmetry(line: LossLine | LossDisplay, rise: float = 1.0, metric: str = "loss") -> _Array: ...
def expected_sigma(
    line: LossLine | LossDisplay, rise: float = 0.1, metric: str = "loss"
) -> Estimate: ...
def worst_sigma(line: LossLine | LossDisplay, rise: float = 0.1, metric: str = "loss") -> float: ...
def quadratic_half_widths(curvatures: ArrayLike, rise: float = 1.0) -> _Array: ...
def confidence_interval(values: ArrayLike, confidence: float = 0.95) -> Estimate: ...

class Estimate(NamedTuple):
    mean: float
    low: float
    high: float

@overload
def loss_rise(measured: LossSurface, radius: float = 0.1, metric: str = "loss") -> float: ...
@overload
def loss_rise(measured: LossLine, radius: float = 0.1, metric: str = "loss") -> _Array: ...
@overload
def loss_rise(measured: LossDisplay, radius: float = 0.1, metric: str = "loss") -> Any: ...
@overload
def epsilon_sharpness(
    measured: LossSurface, epsilon: float = 0.1, metric: str = "loss"
) -> float: ...
@overload
def epsilon_sharpness(measured: LossLine, epsilon: float = 0.1, metric: str = "loss") -> _Array: ...
@overload
def epsilon_sharpness(measured: LossDisplay, epsilon: float = 0.1, metric: str = "loss") -> Any: ...
@overload
def convex_radius(measured: LossSurface, metric: str = "loss") -> float: ...
@overload
def convex_radius(measured: LossLine, metric: str = "loss") -> _Array: ...
@overload
def convex_radius(measured: LossDisplay, metric: str = "loss") -> Any: ...
def convex_level(surface: _Surface, metric: str = "loss") -> float: ...
@overload
def non_convexity(
    measured: LossSurface, metric: str = "loss", *, below: float | None = None
) -> float: ...
@overload
def non_convexity(
    measured: LossLine, metric: str = "loss", *, below: float | None = None
) -> _Array: ...
@overload
def non_convexity(
    measured: LossDisplay, metric: str = "loss", *, below: float | None = None
) -> Any: ...
@overload
def loss_barrier(
    measured: LossLine | LossDisplay,
    metric: str = "loss",
    *,
    definition: _Definition = "chord",
    mode: _Mode = "min",
) -> float: ...
@overload
def loss_barrier(
    measured: LossBarriers,
    metric: str = "loss",
    *,
    definition: _Definition = "chord",
    mode: _Mode = "min",
) -> _Array: ...

# Files of other tools
def write_html(surface: _Surface, path: _Path, *, title: str | None = None) -> None: ...
def write_mesh(
    surface: _Surface,
    path: _Path,
    *,
    metric: str = "loss",
    scale: _Scale = "linear",
    height: float = 0.5,
) -> None: ...
def write_reference(
    path: _Path,
    train: LossLine | LossSurface | LossDisplay | None = None,
    test: LossLine | LossSurface | LossDisplay | None = None,
    *,
    metric: str = "loss",
) -> None: ...
def read_reference(path: _Path) -> dict[str, LossLine | LossSurface]: ...

# State
def preserved(model: keras.Model) -> AbstractContextManager[None]: ...
