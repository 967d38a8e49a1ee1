"""Surfaces: what was measured, as small values that save and describe themselves.

A `LossLine` holds losses along directions, a `LossSurface` over the plane of
two. Both keep every metric of the model, the values at the unperturbed weights
and how they were computed, and can be drawn again without model or data.
"""

import dataclasses
import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np

__version__ = "0.1.0"


class _Saved:
    """HDF5 reading and writing, the same for lines and surfaces."""

    # The fields with a value per point, in the order in which points are numbered.
    measured: ClassVar = ("values",)

    def save(self, path):
        """Writes everything to an HDF5 file.

        Args:
            path: Where to write; an existing file is replaced as a whole, so
                that at any instant there is the old one or the new one.

        Example:

        >>> display.surface.save("resnet56.h5")
        """
        content = io.BytesIO()
        with h5py.File(content, "w") as file:
            file.attrs["kind"] = type(self).__name__
            file.attrs["losslandscape_version"] = __version__
            for field in dataclasses.fields(self):
                _write(file, field.name, getattr(self, field.name))
        _replace(Path(path), content.getvalue())

    @classmethod
    def load(cls, path):
        """Reads what `save` wrote.

        Args:
            path: Path of the HDF5 file.

        Returns:
            A value of this class, equal to the saved one in every bit.

        Raises:
            ValueError: If the file holds something else.

        Example:

        >>> plot_levels(LossSurface.load("resnet56.h5"))
        """
        with h5py.File(path, "r") as file:
            kind = file.attrs.get("kind")
            if kind != cls.__name__:
                found = f"which holds a {kind}: use `{kind}.load`." if kind else "which is none."
                raise ValueError(
                    f"`path` must be a file written by `{cls.__name__}.save`. Received "
                    f"{str(path)!r}, {found}"
                )
            return cls(**{field.name: _read(file, field.name) for field in dataclasses.fields(cls)})


@dataclass(frozen=True, eq=False, repr=False)
class LossLine(_Saved):
    """Losses along one or several directions, `values["loss"][k, j] = L(θ + alphas[j]·d_k)`.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along the direction.
        values: Dict of float arrays of shape `(k, n)`, one row per direction:
            `"loss"` and every metric the model was compiled with, and
            `"data_loss"`, the loss without weight penalties, if it has any
            (NaN where rounding hides it below them). What was not finite is
            kept as NaN or inf.
        center: Dict of floats, the same at the unperturbed weights.
        metadata: Dict of how this was computed: seed, normalization, ignore
            rule, dataset size, model, versions. In a checkpoint also
            `"missing"`, the positions of points not measured yet, row by row.
    """

    alphas: np.ndarray
    values: dict
    center: dict
    metadata: dict

    def __post_init__(self):
        _check_shapes(self.values, (None, len(self.alphas)))

    def __repr__(self):
        directions = len(next(iter(self.values.values())))
        return (
            f"LossLine({', '.join(self.values)}; {directions} direction{'s'[: directions != 1]}, "
            f"{_extent('alpha', self.alphas)})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class LossSurface(_Saved):
    """Losses over a plane, `values["loss"][i, j] = L(θ + alphas[j]·d1 + betas[i]·d2)`.

    Rows go along beta and columns along alpha, as `np.meshgrid(alphas, betas)`
    and Matplotlib's `contour(alphas, betas, values)` have it.

    Attributes:
        alphas: Float array of shape `(n,)`, the coordinates along d1.
        betas: Float array of shape `(m,)`, the coordinates along d2.
        values: Dict of float arrays of shape `(m, n)`: `"loss"` and every
            metric the model was compiled with, and `"data_loss"`, the loss
            without weight penalties, if it has any (NaN where rounding hides it
            below them). What was not finite is kept as NaN or inf.
        center: Dict of floats, the same at the unperturbed weights.
        metadata: Dict of how this was computed: seed, normalization, ignore
            rule, dataset size, model, versions. In a checkpoint also
            `"missing"`, the positions of points not measured yet, row by row.
    """

    alphas: np.ndarray
    betas: np.ndarray
    values: dict
    center: dict
    metadata: dict

    def __post_init__(self):
        _check_shapes(self.values, (len(self.betas), len(self.alphas)))

    def slice(self, *, alpha=None, beta=None):
        """Cuts the surface along one axis.

        Args:
            alpha: Where to cut along beta. Defaults to `None`.
            beta: Where to cut along alpha. Defaults to `None`.

        Returns:
            A `LossLine` along the other axis, interpolated linearly between
            grid lines. Its `center` is the point where that axis is 0.

        Raises:
            ValueError: If not just one of both is given, or it lies beyond the
                surface.

        Example:

        >>> plot_line([surface.slice(beta=0), surface.slice(alpha=0)], labels=("α", "β"))
        """
        if (alpha is None) == (beta is None):
            raise ValueError(
                f"Either `alpha` or `beta` must be given. Received alpha={alpha}, beta={beta}."
            )
        name, position = ("alpha", alpha) if beta is None else ("beta", beta)
        along, across = (self.betas, self.alphas) if beta is None else (self.alphas, self.betas)
        if not across[0] <= position <= across[-1]:
            raise ValueError(
                f"`{name}` must lie between {across[0]:g} and {across[-1]:g}. Received {position}."
            )
        rows = {key: array if beta is None else array.T for key, array in self.values.items()}
        values = {
            key: np.array([[np.interp(position, across, row) for row in each]])
            for key, each in rows.items()
        }
        center = {key: float(np.interp(0, along, each[0])) for key, each in values.items()}
        if position == 0:
            center = dict(self.center)
        # The positions of missing points would be others; they are NaN.
        metadata = {key: entry for key, entry in self.metadata.items() if key != "missing"}
        return LossLine(along, values, center, metadata | {"slice": {name: position}})

    def __repr__(self):
        axes = f"{_extent('alpha', self.alphas)}, {_extent('beta', self.betas)}"
        return f"LossSurface({', '.join(self.values)}; {axes})"


@dataclass(frozen=True, eq=False, repr=False)
class LossTrajectory(LossSurface):
    """A loss surface, and the path of training on it.

    Attributes:
        path: Float array of shape `(k, 2)`, alpha and beta of each record,
            projected onto the plane; the last one is (0, 0).
        explained: Float array of shape `(2,)`, the share of the path's variance
            along either axis.
        distances: Float array of shape `(k,)`, how far each record is off the
            plane, in the units of `path`.
        plane_values: Dict of float arrays of shape `(k,)`, like `values` at the
            points of `path`.
        true_values: Dict of float arrays of shape `(k,)`, the same at the
            recorded weights themselves.
    """

    measured: ClassVar = ("values", "plane_values")

    path: np.ndarray
    explained: np.ndarray
    distances: np.ndarray
    plane_values: dict
    true_values: dict


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum(_Saved):
    """Eigenvalues of a Hessian as random vectors see them.

    Attributes:
        eigenvalues: Float array of shape `(k, steps)`, a row per random vector.
        shares: Float array of shape `(k, steps)`, the weight of each
            eigenvalue; those of a row sum to 1.
        metadata: Dict of model, number of parameters and seed.
    """

    eigenvalues: np.ndarray
    shares: np.ndarray
    metadata: dict

    def __repr__(self):
        low, high = self.eigenvalues.min(), self.eigenvalues.max()
        return f"Spectrum({len(self.eigenvalues)} probes; eigenvalues {low:.3g}…{high:.3g})"


def _extent(name, coordinates):
    return f"{len(coordinates)} points {name} {coordinates[0]:g}…{coordinates[-1]:g}"


def _check_shapes(values, shape):
    for name, array in values.items():
        if array.ndim != 2 or any(
            size not in (None, actual) for size, actual in zip(shape, array.shape, strict=True)
        ):
            expected = tuple("any" if size is None else size for size in shape)
            raise ValueError(
                f"values[{name!r}] must have shape {expected}. Received {array.shape}."
            )


def _replace(path, content):
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _write(group, name, value):
    if isinstance(value, np.ndarray):
        group[name] = value
    elif name == "metadata":
        group.attrs[name] = json.dumps(value)
    else:
        # Track the order: it is the order in which the model reports its metrics.
        subgroup = group.create_group(name, track_order=True)
        for key, entry in value.items():
            subgroup[key] = entry


def _read(group, name):
    if name == "metadata":
        return json.loads(group.attrs[name])
    if isinstance(group[name], h5py.Dataset):
        return group[name][()]
    return {key: _plain(entry[()]) for key, entry in group[name].items()}


def _plain(entry):
    return entry if entry.ndim else float(entry)
