"""Surfaces: small objects that hold what was measured, and save and describe themselves.

A `LossLine` holds losses along directions, a `LossSurface` losses over the plane
of two directions. Both keep every metric of the model, its values at the
unperturbed weights and a record of how all of them were computed, so a plot can be
drawn again without model or data.
"""

__all__ = [  # noqa: RUF022, in the order of the page
    "LossLine",
    "LossSurface",
    "LossTrajectory",
    "LossFilm",
    "LossBarriers",
    "Spectrum",
    "LayerCurvature",
    "TrainingCurvature",
]

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from losslandscape.basics.checks import check_integer, check_metric, check_number, expanded
from losslandscape.basics.types import Array, Display, FilePath
from losslandscape.values.files import read_value, write_value
from losslandscape.values.tables import to_dataset, to_frame

if TYPE_CHECKING:
    # Optional packages.
    import pandas as pd
    import xarray as xr

__version__ = "0.1.0"

# Suffixes under which nobody would look for an HDF5 file.
OTHER_FILES = (
    ".npz",
    ".npy",
    ".csv",
    ".json",
    ".pkl",
    ".mat",
    ".nc",
    ".png",
    ".pdf",
    ".svg",
    ".html",
)


class Saved:
    """HDF5 reading and writing, shared by all values."""

    def save(self, path: FilePath) -> None:
        """Writes everything to an HDF5 file.

        The file is laid out like the value itself: `file["values/loss"]`. A name
        that HDF5 does not allow, such as `"top/accuracy"`, is written with
        underscores; the attribute `name` keeps the original.

        Args:
            path: Where to write; an existing file is replaced atomically.

        Raises:
            ValueError: If `path` is not a file that can be written, or has the suffix of another
                format, such as .npz.

        Example:

        >>> display.surface.save("resnet56.h5")
        """
        if expanded("path", path).suffix in OTHER_FILES:
            raise ValueError(f"`path` must end in .h5. Received {str(path)!r}.")
        write_value(path, self, __version__)

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Reads a file written by `save`.

        Args:
            path: Path of the HDF5 file.

        Returns:
            A value of this class, bit-identical to the saved one.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds something else, or is damaged.

        Example:

        >>> plot_levels(LossSurface.load("resnet56.h5"))
        """
        return read_value(cls, path, "path", f"a file written by `{cls.__name__}.save`")

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a tidy table: a row per point, and a column per coordinate and value.

        - `LossLine`: `direction`, `alpha` and the values.
        - `LossSurface`: `beta`, `alpha` and the values.
        - `LossTrajectory`, a row per record: `record`, `run`, `epoch` or `step` if known,
          `alpha`, `beta`, `distance`, the values at the recorded weights and, as
          `plane_loss` and so on, the values at their projections onto the plane.
        - `LossFilm`: `frame`, `beta`, `alpha`, `label`, the values and, as `center_loss` and so
          on, the values at the weights of each record.
        - `LossBarriers`: `pair`, `alpha`, `first`, `second` and the values.
        - `Spectrum`: `probe`, `step`, `eigenvalue`, `share`.
        - `LayerCurvature`: `layer`, `parameters`, `largest`, `trace`, `low`, `high`.
        - `TrainingCurvature`: `epoch`, `step` or `record`, the values and `threshold`.

        Errors of the choice of samples follow as `loss_error` and so on. If the name of a
        metric is taken, `_value` is appended to it. Points that were
        interpolated, or that a checkpoint lacks, are marked in the columns
        `interpolated` and `missing`.

        Returns:
            A `pandas.DataFrame`. Its `attrs` are the metadata, with the values at the
            model itself as `"center"`.

        Raises:
            ImportError: If pandas is not installed (the extra `pandas`).

        Example:

        >>> frame = line.to_pandas()
        >>> mean = frame.groupby("alpha")["loss"].mean()
        """
        return to_frame(*self._table())

    def to_xarray(self) -> "xr.Dataset":
        """Returns the arrays with the names of their dimensions and their coordinates.

        The names are those of `to_pandas`. The dataset of a trajectory contains its surface
        and, along `record`, everything about the path, as `path_alpha`, `path_loss` and so on.

        Returns:
            An `xarray.Dataset`. Its `attrs` are the metadata, with the values at the model
            itself as `"center"`. All but numbers and strings are encoded as JSON, so that
            `to_netcdf` can write them.

        Raises:
            ImportError: If xarray is not installed (the extra `xarray`).

        Example:

        >>> dataset = surface.to_xarray()
        >>> lowest = dataset["loss"].min("beta")
        """
        return to_dataset(*self._table())


class _Landscape(Saved):
    """Properties that lines and surfaces derive from their fields."""

    # The fields with one value per point, in the order in which the points are numbered.
    measured: ClassVar = ("values",)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Boolean array, shaped like the values: the points that a checkpoint still lacks."""
        is_missing = np.zeros(next(iter(self.values.values())).shape, bool)
        numbers = np.array(self.missing_numbers, int)
        # The points of a path come after those of its surface.
        is_missing.flat[numbers[numbers < is_missing.size]] = True
        return is_missing

    @property
    def interpolated(self) -> NDArray[np.bool_]:
        """Boolean array, shaped like the values: the points interpolated instead of measured."""
        is_interpolated = np.zeros(next(iter(self.values.values())).shape, bool)
        is_interpolated.flat[self.metadata.get("interpolated", [])] = True
        return is_interpolated

    @property
    def missing_numbers(self) -> list[int]:
        """List of ints: the missing points, numbered row by row, and then along a path, if any."""
        return self.metadata.get("missing", [])

    @property
    def models(self) -> Array:
        """Float array of shape `(k, len(axes))`: where the models lie, by default at the origin."""
        origin = [0.0] * len(self.axes)
        return np.array(self.metadata.get("positions", origin), float).reshape(-1, len(self.axes))

    def _table(self):
        coordinates = self._coordinates()
        marks = [mark for mark in ("interpolated", "missing") if mark in self.metadata]
        columns = [(mark, getattr(self, mark)) for mark in marks] + list(self.values.items())
        # Barriers, trajectories and curvatures have no errors.
        errors = getattr(self, "errors", {})
        columns += [(f"{name}_error", array) for name, array in errors.items()]
        variables = [(name, coordinates, array) for name, array in columns]
        return coordinates, variables, self._attributes()

    def _attributes(self):
        return {"center": self.center} | self.metadata


@dataclass(frozen=True, eq=False, repr=False)
class LossLine(_Landscape):
    """Losses along one or more directions, `values["loss"][k, j] = L(θ + alphas[j]·d_k)`.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along the direction.
        values: Dict of float arrays of shape `(k, n)`, one row per direction:
            `"loss"`, every metric the model was compiled with and, if the model
            has weight penalties, `"data_loss"`, the loss without penalties (NaN
            where these are so large that rounding hides it). Non-finite values
            are kept as NaN or inf.
        center: Dict of floats, the same values at the unperturbed weights.
        metadata: Dict that says how this was computed: seed, normalization,
            ignore rule, dataset size, model, versions. In a checkpoint also
            `"missing"`, the numbers of the points not measured yet, row by row.
        errors: Dict of float arrays shaped like those of `values`: by how much a value would
            differ had other samples been drawn, one standard error, if it was measured with
            `sampling_error=True`. Only means over samples have one; empty by default.
    """

    alphas: Array
    values: dict[str, Array]
    center: dict[str, float]
    metadata: dict[str, Any]
    errors: dict[str, Array] = field(default_factory=dict, kw_only=True)

    def __post_init__(self):
        _check_shapes("values", self.values, (None, len(self.alphas)))
        _check_shapes("errors", self.errors, (None, len(self.alphas)))

    @property
    def axes(self) -> tuple[Array, ...]:
        """Tuple of the coordinates along each axis: `(alphas,)`."""
        return (self.alphas,)

    @property
    def axis_names(self) -> tuple[str]:
        """Tuple of the name of the axis: β for a slice of a surface along beta, otherwise α."""
        return ("β",) if "alpha" in self.metadata.get("slice", {}) else ("α",)

    def _coordinates(self):
        (axis,) = self.axis_names
        directions = np.arange(len(next(iter(self.values.values()))))
        return {"direction": directions, {"α": "alpha", "β": "beta"}[axis]: self.alphas}

    def __repr__(self):
        directions = len(next(iter(self.values.values())))
        return (
            f"LossLine({', '.join(self.values)}; {directions} direction{'s'[: directions != 1]}, "
            f"{_extent('alpha', self.alphas)})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class LossSurface(_Landscape):
    """Losses over a plane, `values["loss"][i, j] = L(θ + alphas[j]·d1 + betas[i]·d2)`.

    Rows follow beta and columns follow alpha, as in `np.meshgrid(alphas, betas)`
    and Matplotlib's `contour(alphas, betas, values)`.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along d1.
        betas: Float array of shape `(m,)`, the coordinates along d2.
        values: Dict of float arrays of shape `(m, n)`: `"loss"`, every metric
            the model was compiled with and, if the model has weight penalties,
            `"data_loss"`, the loss without penalties (NaN where these are so
            large that rounding hides it). Non-finite values are kept as NaN or
            inf.
        center: Dict of floats, the same values at the unperturbed weights.
        metadata: Dict that says how this was computed: seed, normalization,
            ignore rule, dataset size, model, versions. In a checkpoint also
            `"missing"`, the numbers of the points not measured yet, row by row.
        errors: Dict of float arrays shaped like those of `values`: by how much a value would
            differ had other samples been drawn, one standard error, if it was measured with
            `sampling_error=True`. Only means over samples have one; empty by default.
    """

    alphas: Array
    betas: Array
    values: dict[str, Array]
    center: dict[str, float]
    metadata: dict[str, Any]
    errors: dict[str, Array] = field(default_factory=dict, kw_only=True)

    def __post_init__(self):
        _check_shapes("values", self.values, (len(self.betas), len(self.alphas)))
        _check_shapes("errors", self.errors, (len(self.betas), len(self.alphas)))

    @property
    def axes(self) -> tuple[Array, ...]:
        """Tuple of the coordinates along each axis: alphas, the columns of `values`, then betas."""
        return self.alphas, self.betas

    @property
    def axis_names(self) -> tuple[str, str]:
        """Tuple of the names of both axes, as shown in plots."""
        return "α", "β"

    def slice(self, *, alpha: float | None = None, beta: float | None = None) -> LossLine:
        """Cuts the surface along one axis.

        Args:
            alpha: Coordinate of a cut along beta. Defaults to `None`.
            beta: Coordinate of a cut along alpha. Defaults to `None`.

        Returns:
            A `LossLine` along the other axis, interpolated linearly between
            grid lines. Its `center` holds the values at coordinate 0. In a
            checkpoint, points interpolated from a missing one are missing.

        Raises:
            ValueError: If both or neither are given, or the coordinate lies
                outside the surface.

        Example:

        >>> plot_line([surface.slice(beta=0), surface.slice(alpha=0)], labels=("α", "β"))
        """
        if (alpha is None) == (beta is None):
            raise ValueError(
                f"Exactly one of `alpha` and `beta` must be given. Received alpha={alpha}, "
                f"beta={beta}."
            )
        name, position = ("alpha", alpha) if beta is None else ("beta", beta)
        check_number(name, position)
        along, across = self.axes[::-1] if beta is None else self.axes
        if not across[0] <= position <= across[-1]:
            raise ValueError(
                f"`{name}` must lie between {across[0]:g} and {across[-1]:g}. Received {position}."
            )

        def cut(array):
            rows = array if beta is None else array.T
            return np.array([[np.interp(position, across, row) for row in rows]])

        values = {key: cut(array) for key, array in self.values.items()}
        errors = {key: cut(array) for key, array in self.errors.items()}
        center = {key: float(np.interp(0, along, each[0])) for key, each in values.items()}
        if position == 0:
            center = dict(self.center)
        metadata = dict(self.metadata)
        for key, is_marked in (("missing", self.missing), ("interpolated", self.interpolated)):
            metadata.pop(key, None)
            marked = np.flatnonzero(cut(is_marked) > 0)
            if marked.size:
                metadata[key] = marked.tolist()
        if "positions" in metadata:
            pairs = [pair if beta is None else pair[::-1] for pair in self.models.tolist()]
            metadata["positions"] = [there for off, there in pairs if off == position]
        metadata |= {"slice": {name: position}}
        return LossLine(along, values, center, metadata, errors=errors)

    def _coordinates(self):
        return {"beta": self.betas, "alpha": self.alphas}

    def __repr__(self):
        axes = f"{_extent('alpha', self.alphas)}, {_extent('beta', self.betas)}"
        return f"LossSurface({', '.join(self.values)}; {axes})"


@dataclass(frozen=True, eq=False, repr=False)
class LossTrajectory(LossSurface):
    """A loss surface with the path of training on it, or the paths of several runs.

    Attributes:
        path: Float array of shape `(k, 2)`, alpha and beta of each record,
            projected onto the plane. A single run ends at (0, 0). The records of
            several runs follow each other; `runs` tells them apart.
        explained: Float array of shape `(2,)`, the fraction of the path's variance
            along each axis.
        distances: Float array of shape `(k,)`, the distance of each record from
            the plane, in the units of `path`.
        plane_values: Dict of float arrays of shape `(k,)`, the values at the
            points of `path`, which lie on the plane.
        true_values: Dict of float arrays of shape `(k,)`, the values at the
            recorded weights themselves.
    """

    measured: ClassVar = ("values", "plane_values", "true_values")

    path: Array
    explained: Array
    distances: Array
    plane_values: dict[str, Array]
    true_values: dict[str, Array]

    @property
    def runs(self) -> dict[str, slice]:
        """Dict of slices by name: which of the records belong to which run."""
        numbers = self.metadata.get("runs", {"training": len(self.path)})
        ends = np.cumsum(list(numbers.values())).tolist()
        pairs = zip(numbers.items(), ends, strict=True)
        return {name: slice(end - number, end) for (name, number), end in pairs}

    @property
    def unit(self) -> str:
        """Unit of `times`: `"epoch"`, `"step"` or, if the files do not say, `"record"`."""
        return self.metadata.get("unit", "record")

    @property
    def times(self) -> Array:
        """Float array of shape `(k,)`, when each record was made: the epoch, step or number."""
        counted = [np.arange(part.stop - part.start) for part in self.runs.values()]
        return np.array(self.metadata.get("times", np.concatenate(counted)), float)

    @property
    def axis_names(self) -> tuple[str, str]:
        """Tuple of the names of both axes, each with its fraction of the path's variance."""
        first, second = (
            f"{order} principal component ({share:.1%})"
            for order, share in zip(("1st", "2nd"), self.explained, strict=True)
        )
        if self.metadata.get("second_axis") == "random":
            # A straight path has no second component.
            second = "random direction at right angles"
        return first, second

    def to_pandas(self) -> "pd.DataFrame":
        """Returns a tidy table of the path, a row per record; see `LossLine.to_pandas`.

        For the surface, use `to_xarray`.
        """
        return to_frame(*self._records(), self._attributes())

    def to_xarray(self) -> "xr.Dataset":
        """Returns the surface and, along `record`, the path; see `LossLine.to_xarray`."""
        coordinates, variables, attributes = self._table()
        records, path = self._records()
        path = [(f"path_{name}", along, array) for name, along, array in path]
        return to_dataset(coordinates | records, variables + path, attributes)

    def _records(self):
        runs = [name for name, part in self.runs.items() for _ in self.path[part]]
        alphas, betas = self.path.T
        columns = [("run", np.array(runs)), ("alpha", alphas), ("beta", betas)]
        if self.unit != "record":
            columns.insert(1, (self.unit, self.times))
        columns += [("distance", self.distances), *self.true_values.items()]
        columns += [(f"plane_{metric}", array) for metric, array in self.plane_values.items()]
        variables = [(name, ("record",), array) for name, array in columns]
        return {"record": np.arange(len(self.path))}, variables


@dataclass(frozen=True, eq=False, repr=False)
class LossFilm(_Landscape):
    """Loss surfaces in the course of training: one around each of several records.

    `values["loss"][k, i, j] = L(θ_k + alphas[j]·d1 + betas[i]·d2)`, where θ_k are the weights of
    a record. All frames have the same axes and the same directions, so that they can be
    compared point by point.

    Functions that draw or measure surfaces accept a film in their place, one per frame:
    `plot_levels(film, labels=film.labels)`.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along d1.
        betas: Float array of shape `(m,)`, the coordinates along d2.
        values: Dict of float arrays of shape `(k, m, n)`, one surface per record: `"loss"` and
            every other value, as in `LossSurface`.
        centers: Dict of float arrays of shape `(k,)`, the same values at the weights of each
            record.
        center: Dict of floats, the same values at the model, whose weights are the last record.
        metadata: Dict that says how this was computed, as in `LossSurface`. `"labels"` names
            the frames.
    """

    measured: ClassVar = ("values", "centers")

    alphas: Array
    betas: Array
    values: dict[str, Array]
    centers: dict[str, Array]
    center: dict[str, float]
    metadata: dict[str, Any]

    def __post_init__(self):
        _check_shapes("values", self.values, (len(self.labels), len(self.betas), len(self.alphas)))

    @property
    def labels(self) -> list[str]:
        """List of the names of the frames, such as `"epoch 3"`."""
        return self.metadata["labels"]

    @property
    def axes(self) -> tuple[Array, ...]:
        """Tuple of the coordinates along each axis of a frame: alphas, then betas."""
        return self.alphas, self.betas

    @property
    def surfaces(self) -> list[LossSurface]:
        """List of a `LossSurface` per frame; `center` has the values at the record."""
        shared = {
            key: entry for key, entry in self.metadata.items() if key not in ("labels", "missing")
        }
        return [self._surface(frame, shared) for frame in range(len(self.labels))]

    def _surface(self, frame, shared):
        values, center = (
            {name: array[frame] for name, array in each.items()}
            for each in (self.values, self.centers)
        )
        center = {name: float(value) for name, value in center.items()}
        metadata = shared | {"label": self.labels[frame]}
        missing = np.flatnonzero(self.missing[frame])
        if missing.size:
            metadata["missing"] = missing.tolist()
        return LossSurface(self.alphas, self.betas, values, center, metadata)

    def _coordinates(self):
        frames = np.arange(len(self.labels))
        return {"frame": frames, "beta": self.betas, "alpha": self.alphas}

    def _table(self):
        coordinates, variables, attributes = super()._table()
        labels = ("label", ("frame",), np.array(self.labels))
        centers = [(f"center_{name}", ("frame",), each) for name, each in self.centers.items()]
        return coordinates, [labels, *variables, *centers], attributes

    def __repr__(self):
        axes = f"{_extent('alpha', self.alphas)}, {_extent('beta', self.betas)}"
        return f"LossFilm({', '.join(self.values)}; {len(self.labels)} frames, {axes})"


@dataclass(frozen=True, eq=False, repr=False)
class LossBarriers(_Landscape):
    """Losses on the straight lines between each pair of several models.

    For the models θ_0, θ_1, …, `values["loss"][k, j]` is the loss at
    `(1 - alphas[j])·θ_a + alphas[j]·θ_b`, where `(a, b) = pairs[k]`.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates between two models, from
            0 to 1.
        values: Dict of float arrays of shape `(number of pairs, n)`: `"loss"` and
            every other value, as in `LossLine`.
        center: Dict of floats, the same values at the first model.
        metadata: Dict that says how this was computed, as in `LossLine`. `"models"` lists
            the names of the models.
    """

    alphas: Array
    values: dict[str, Array]
    center: dict[str, float]
    metadata: dict[str, Any]

    def __post_init__(self):
        _check_shapes("values", self.values, (len(self.pairs), len(self.alphas)))

    @property
    def axes(self) -> tuple[Array, ...]:
        """Tuple of the coordinates along each axis: `(alphas,)`."""
        return (self.alphas,)

    @property
    def names(self) -> list[str]:
        """List of the names of the models."""
        return self.metadata["models"]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """List of the pairs of models, by number: `(0, 1), (0, 2), …, (1, 2), …`."""
        return list(itertools.combinations(range(len(self.names)), 2))

    def line(self, first: int, second: int) -> LossLine:
        """Returns the line from one model to another.

        Args:
            first: Number of the model at coordinate 0, counted from 0.
            second: Number of the model at coordinate 1.

        Returns:
            A `LossLine`. In a checkpoint, the points not measured yet are missing.

        Raises:
            ValueError: If these are not the numbers of two of the models.

        Example:

        >>> plot_line([barriers.line(0, 1), barriers.line(0, 2)], labels=("second", "third"))
        """
        check_integer("first", first)
        check_integer("second", second)
        pair = tuple(sorted((first, second)))
        if pair not in self.pairs:
            raise ValueError(
                f"`first` and `second` must be two numbers from 0 to {len(self.names) - 1}. "
                f"Received {first!r} and {second!r}."
            )
        # Reversed, the coordinates stay the same, since they are spaced evenly from 0 to 1.
        row, step = self.pairs.index(pair), 1 if first < second else -1
        values = {name: array[row : row + 1, ::step] for name, array in self.values.items()}
        center = {name: float(array[0, 0]) for name, array in values.items()}
        metadata = {key: entry for key, entry in self.metadata.items() if key != "missing"}
        metadata |= {"models": [self.names[first], self.names[second]], "positions": [0.0, 1.0]}
        missing = np.flatnonzero(self.missing[row, ::step])
        if missing.size:
            metadata["missing"] = missing.tolist()
        return LossLine(self.alphas, values, center, metadata)

    def _coordinates(self):
        return {"pair": np.arange(len(self.pairs)), "alpha": self.alphas}

    def _table(self):
        coordinates, variables, attributes = super()._table()
        first, second = np.array(self.names)[np.array(self.pairs)].T
        models = [("first", ("pair",), first), ("second", ("pair",), second)]
        return coordinates, models + variables, attributes

    def __repr__(self):
        return (
            f"LossBarriers({', '.join(self.values)}; {len(self.names)} models, "
            f"{_extent('alpha', self.alphas)})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(Saved):
    """Eigenvalues of a Hessian, estimated with random vectors.

    Attributes:
        eigenvalues: Float array of shape `(k, steps)`, a row per random vector.
        shares: Float array of shape `(k, steps)`, the weight of each
            eigenvalue; each row sums to 1.
        metadata: Dict of model, number of parameters and seed.
    """

    eigenvalues: Array
    shares: Array
    metadata: dict[str, Any]

    def _table(self):
        probes, steps = map(np.arange, self.eigenvalues.shape)
        coordinates = {"probe": probes, "step": steps}
        columns = {"eigenvalue": self.eigenvalues, "share": self.shares}
        variables = [(name, coordinates, array) for name, array in columns.items()]
        return coordinates, variables, self.metadata

    def __repr__(self):
        low, high = self.eigenvalues.min(), self.eigenvalues.max()
        return f"Spectrum({len(self.eigenvalues)} probes; eigenvalues {low:.3g}…{high:.3g})"


@dataclass(frozen=True, eq=False, repr=False)
class LayerCurvature(Saved):
    """The curvature of the loss in each layer of a model, with all other layers fixed.

    Attributes:
        largest: Float array of shape `(k,)`, the largest eigenvalue of each layer's
            own block of the Hessian.
        traces: Float array of shape `(k, 3)`: estimate, lower and upper end of the
            95% confidence interval of the trace of each block. The estimates sum
            to the trace of the whole Hessian.
        metadata: Dict of the names of the `"layers"`, the numbers of `"parameters"`
            that move in them, model, seed and normalization.
    """

    largest: Array
    traces: Array
    metadata: dict[str, Any]

    def _table(self):
        coordinates = {"layer": np.array(self.metadata["layers"])}
        columns = {"parameters": np.array(self.metadata["parameters"]), "largest": self.largest}
        columns |= dict(zip(("trace", "low", "high"), self.traces.T, strict=True))
        variables = [(name, coordinates, array) for name, array in columns.items()]
        return coordinates, variables, self.metadata

    def __repr__(self):
        parts = zip(self.metadata["layers"], self.largest, self.traces[:, 0], strict=True)
        layers = "; ".join(f"{name}: λmax {top:.3g}, trace {sum_:.3g}" for name, top, sum_ in parts)
        return f"LayerCurvature({layers})"


@dataclass(frozen=True, eq=False, repr=False)
class TrainingCurvature(_Landscape):
    """The curvature of the loss in the course of training.

    Attributes:
        times: Float array of shape `(k,)`, the epoch or step of each record.
        values: Dict of float arrays of shape `(k,)`: `"loss"` and the measures that
            `training_curvature` was asked for. Estimates such as `"trace"` come with
            the ends of their 95% confidence intervals, `"trace_low"` and
            `"trace_high"`. Non-finite values are kept as NaN or inf.
        thresholds: Float array of shape `(k,)`, the eigenvalue above which gradient
            descent is unstable: without momentum, 2/η for the learning rate η. NaN where
            it is unknown.
        center: Dict of floats, the same values at the model itself.
        metadata: Dict that says how this was computed. `"unit"` is that of `times`:
            `"epoch"`, `"step"` or, if the names of the records do not say, `"record"`.
    """

    times: Array
    values: dict[str, Array]
    thresholds: Array
    center: dict[str, float]
    metadata: dict[str, Any]

    @property
    def axes(self) -> tuple[Array, ...]:
        """Tuple of the coordinates along each axis: `(times,)`."""
        return (self.times,)

    @property
    def measures(self) -> list[str]:
        """List of the names of the measured values, without the ends of intervals."""
        ends = {f"{name}_{end}" for name in self.values for end in ("low", "high")}
        return [name for name in self.values if name not in ends]

    def _coordinates(self):
        return {self.metadata["unit"]: self.times}

    def _table(self):
        coordinates, variables, attributes = super()._table()
        threshold = "threshold", coordinates, self.thresholds
        return coordinates, [*variables, threshold], attributes

    def __repr__(self):
        unit = self.metadata["unit"]
        return (
            f"TrainingCurvature({', '.join(self.measures)}; {len(self.times)} records, "
            f"{unit} {self.times[0]:g}…{self.times[-1]:g})"
        )


def complete_values(measured, metric):
    """Returns the values of a metric; refuses an unfinished checkpoint."""
    check_metric(metric, single=True)
    if metric not in measured.values:
        accepted = ", ".join(map(repr, measured.values))
        raise ValueError(f"`metric` must be one of {accepted}. Received {metric!r}.")
    missing = np.count_nonzero(measured.missing)
    if missing:
        raise ValueError(
            f"The values must be complete, but {missing} points are missing in {measured!r}. "
            "Repeat the call that began this checkpoint, to resume it."
        )
    return measured.values[metric]


def values_of(name, value, kind):
    """Returns the values that were given, as a list.

    Args:
        name: The name of the argument, for errors.
        value: A value; a display, which is any object with `lines` and `surfaces`; or a
            list of either.
        kind: The class that the values must have, such as `LossLine`, or a tuple of classes.

    Raises:
        TypeError: If something else was given.
        ValueError: If the list is empty.
    """
    given = list(value) if isinstance(value, (list, tuple, np.ndarray)) else [value]
    values = [part for each in given for part in _held(each, kind)]
    for each in values:
        if not isinstance(each, kind):
            others = [other for other in PLOTS if isinstance(each, other)]
            hint = f" To draw it, call `{PLOTS[others[-1]]}`." if others else ""
            raise TypeError(f"`{name}` must be a {_names(kind)}. Received {each!r}.{hint}")
    if not values:
        raise ValueError(f"`{name}` must be at least one {_names(kind)}. Received none.")
    return values


def _held(value, kind):
    """The values of a class that a display holds; otherwise a list of the value as it is."""
    held = [*getattr(value, "lines", []), *getattr(value, "surfaces", [])]
    return [each for each in held if isinstance(each, kind)] or [value]


def value_of(name, value, kind):
    """Returns the one value that was given; refuses several, and all that `values_of` refuses."""
    values = values_of(name, value, kind)
    if len(values) != 1:
        raise TypeError(
            f"`{name}` must be one {_names(kind)}. Received {len(values)}: pass one of them."
        )
    return values[0]


def _names(kind):
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return " or ".join(f"`{each.__name__}`" for each in kinds)


# Types of the arguments of functions that take one value or several.
Lines: TypeAlias = LossLine | Display | Sequence[LossLine]
Surface: TypeAlias = LossSurface | Display
Surfaces: TypeAlias = Surface | LossFilm | Sequence[LossSurface]

PLOTS = {
    LossLine: "plot_line",
    LossSurface: "plot_levels",
    LossTrajectory: "plot_path",
    LossFilm: "animate_film",
    LossBarriers: "plot_barriers",
    Spectrum: "plot_spectrum",
    LayerCurvature: "plot_layers",
    TrainingCurvature: "plot_training_curvature",
}


def _extent(name, coordinates):
    return f"{len(coordinates)} points {name} {coordinates[0]:g}…{coordinates[-1]:g}"


def _check_shapes(field, values, shape):
    for name, array in values.items():
        if array.ndim != len(shape) or any(
            size not in (None, actual) for size, actual in zip(shape, array.shape, strict=True)
        ):
            expected = tuple("any" if size is None else size for size in shape)
            raise ValueError(
                f"{field}[{name!r}] must have shape {expected}. Received {array.shape}."
            )
