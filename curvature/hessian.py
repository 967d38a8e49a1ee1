"""Curvature: the Hessian of the loss at a model, through its products with vectors.

The Hessian itself is never stored, except that of very small models. All results
are for the mean loss over a whole dataset, with the weight penalties, as
`model.evaluate` reports it. They do not depend on how the data are batched; a loss
that does is refused.
"""

__all__ = ["Hessian", "evaluate_convexity"]

import contextlib
import functools
import itertools
from collections.abc import Sequence
from typing import Literal, Unpack

import keras
import numpy as np
from numpy.typing import ArrayLike

from losslandscape.backends.current import check_differentiates
from losslandscape.basics.arrays import dot, flat, times
from losslandscape.basics.checks import (
    check_choice,
    check_compiled,
    check_integer,
    check_not_quantized,
    check_number,
    import_extra,
)
from losslandscape.basics.types import (
    Array,
    Data,
    Direction,
    Directions,
    Ignore,
    Layers,
    Normalize,
    Points,
    Verbose,
)
from losslandscape.curvature.derivatives import (
    check_derivatives,
    check_loss,
    differentiator,
    mean_derivative,
    reported_loss,
)
from losslandscape.directions import (
    IGNORE_RULES,
    check_direction,
    check_directions,
    layer_names,
    owners,
    resolve_ignore,
    resolve_seed,
    scales,
)
from losslandscape.evaluation import Evaluation, Plan
from losslandscape.measuring.datasets import one_dataset, read_dataset
from losslandscape.measuring.engines import evaluator, point_by_point
from losslandscape.measuring.grids import Grid
from losslandscape.measuring.options import AROUND, MeasuringAround, evaluating
from losslandscape.measuring.progress import Progress, Status, tracked
from losslandscape.measuring.state import evaluated
from losslandscape.values.measures import Estimate, confidence_interval
from losslandscape.values.surfaces import LayerCurvature, LossSurface, Spectrum

ENDS = {"largest": "LA", "smallest": "SA", "magnitude": "LM", "both": "BE"}
# Up to this many parameters the Hessian itself is small, and all its eigenvalues are cheap.
DENSE = 32


class Hessian:
    """The Hessian of the loss of a model on a dataset: its eigenvalues, its trace, and more.

    All its methods share one graph, which often takes longer to make than to use. The
    graph lives as long as this object does. Each call uses the weights that the model
    has at that moment, and leaves the model as it was.

    Example:

    >>> hessian = Hessian(model, x_train, y_train)
    >>> values, directions = hessian.eigenvalues(which="both")
    >>> plot_loss_3D(model, "levels", x_train, y_train, directions=directions)
    >>> print(hessian.trace(seed=0))
    >>> plot_spectrum(hessian.spectrum(seed=0))
    >>> plot_layers(hessian.by_layer(seed=0))

    Args:
        model: A compiled and built `keras.Model`. If it is compiled again or other
            weights become trainable, make a new `Hessian`: the old one raises an error.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        normalize: `None` (the default) for the Hessian H itself. `"filter"`,
            `"layer"` or `"weight"` for T·H·T, where the diagonal matrix T holds the
            scales of random directions d with this normalization, so that
            `E[dᵀHd] = tr(T·H·T)`. For `"filter"`, each of the n entries of a filter
            has the scale `‖θ_f‖ / √n`.
        ignore: What does not move, that is, has the scale 0: biases and normalization
            parameters (`"biasbn"`), or nothing (`None`), as in `random_directions`.
            `"auto"` (the default) is `"biasbn"` with `normalize`, otherwise `None`.
            The reference implementation computes the eigenvalues with `"biasbn"`.
        layers: The layers that move, while all others are fixed; see
            `random_directions`. Defaults to `None`, all of them.
        batch_size: Samples per batch, for arrays; it affects only memory and
            speed. `None` (the default) chooses one.
        verbose: As in `evaluate_lines`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the model is not compiled or built, the backend is not
            TensorFlow, JAX or Torch, an operation has no second derivative, state
            passes from batch to batch, or the loss is not a mean over samples, for
            example with `reduction="sum"`. The methods raise it, too, if the Hessian
            is not finite, or a check fails: the first product checks, on a few
            samples, that the Hessian is symmetric and that differences of gradients
            converge to it. Every call (of `product`, only the first) checks on all
            data that the differentiated loss is the one that `model.evaluate` reports.
        ImportError: If SciPy is not installed (the extra `analysis`), except by
            `product` and `along`.

    Reference:
        Pearlmutter, 1994, "Fast exact multiplication by the Hessian". The scales
        follow from the directions of [Li et al., 2018](
        https://arxiv.org/abs/1712.09913), section 4.
    """

    def __init__(
        self,
        model: keras.Model,
        x: Data,
        y: Data = None,
        *,
        normalize: Normalize = None,
        ignore: Ignore | Literal["auto"] = "auto",
        layers: Layers | None = None,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
    ) -> None:
        check_compiled(model)
        check_not_quantized(model)
        check_differentiates("Curvature")
        self.model, self._verbose = model, verbose
        self._rules = {"normalize": normalize, "ignore": ignore, "layers": layers}
        scales(model, **self._rules)
        status = Status(verbose)
        data = read_dataset(model, one_dataset(x, y), batch_size)
        status.announce("Preparing the Hessian")
        self._products = _Products(model, data)

    def product(self, direction: Sequence[ArrayLike]) -> Direction:
        """Multiplies the Hessian by a direction.

        Args:
            direction: A list of arrays with the shapes of `model.trainable_variables`.

        Returns:
            Another such list, in single precision, or in double precision for weights
            that have it. It is zero for weights that the loss does not depend on, and
            may not be finite. In half precision it is only as accurate as the model's
            own gradients.
        """
        direction = check_direction(self.model, direction)
        with self._matrix() as matrix:
            return times(matrix.units, matrix.product(times(matrix.units, direction)))

    def along(self, directions: Directions) -> Array:
        """Computes the second derivative of the loss along directions, dᵀHd.

        This predicts how wide a minimum is; see `quadratic_half_widths`.

        Args:
            directions: List of directions, for example of `random_directions`. They are
                taken as they are, whatever `normalize` is.

        Returns:
            Float array of shape `(k,)`, one number per direction. The mean over many
            random directions with filter normalization approaches the trace with
            `normalize="filter"`.
        """
        directions = check_directions(self.model, directions)
        curvatures = []
        with self._compared_matrix() as matrix:
            for each in tracked(directions, Status(self._verbose), "direction"):
                curvatures.append(dot(each, matrix.product(each)))
                _check_finite(curvatures)
        return np.array(curvatures)

    def eigenvalues(
        self,
        number: int = 1,
        which: Literal["largest", "smallest", "magnitude", "both"] = "largest",
        *,
        tolerance: float = 1e-4,
        seed: int | None = None,
    ) -> tuple[Array, list[Direction]]:
        """Finds the extreme eigenvalues and their directions.

        Args:
            number: How many: fewer than the model has parameters, or up to all of
                them if it has at most 32. Defaults to 1.
            which: `"largest"` (the default), `"smallest"`, that is, the most negative
                ones, `"magnitude"`, the largest in absolute value, or `"both"`, the
                largest and the smallest: twice `number`. With `number=1` they span
                the plane in which the loss curves most upwards and most downwards.
            tolerance: Relative accuracy. Defaults to 1e-4; single precision allows
                little more.
            seed: Integer seed for the starting vector. `None` (the default) draws
                one from NumPy's global random state.

        Returns:
            A float array of shape `(number,)`, the most extreme value first (for
            `"both"` of twice that length, the largest before the smallest), and a
            list of directions, each a list of arrays with the shapes of
            `model.trainable_variables`. They are T times the eigenvectors of length
            1, so the second derivative of the loss along each is its eigenvalue.

        Raises:
            scipy.sparse.linalg.ArpackNoConvergence: If not all eigenvalues were
                found; the error holds those that were.
        """
        check_integer("number", number, minimum=1)
        check_choice("which", which, tuple(ENDS))
        check_number("tolerance", tolerance, minimum=0, below=1)
        import_extra("scipy.sparse.linalg", "analysis")
        total = 2 * number if which == "both" else number
        options = {"tolerance": tolerance, "seed": resolve_seed(seed)}
        with self._counted_matrix(None) as matrix:
            values, directions = _eigenpairs(matrix, total, ENDS[which], **options)
        _check_finite(values)
        return values, directions

    def trace(self, number_of_probes: int = 30, *, seed: int | None = None) -> Estimate:
        """Estimates the trace, the sum of all eigenvalues.

        With `normalize`, it is the mean second derivative of the loss along random
        directions with this normalization.

        Args:
            number_of_probes: How many random vectors of ±1 to use, at least 2. The
                error falls with the square root of this number. Defaults to 30.
            seed: Integer seed for the vectors. `None` (the default) draws one from
                NumPy's global random state.

        Returns:
            An `Estimate(mean, low, high)` with the 95% confidence interval.

        Reference:
            Hutchinson, 1989, "A stochastic estimator of the trace of the influence
            matrix".
        """
        check_integer("number_of_probes", number_of_probes, minimum=2)
        import_extra("scipy.stats", "analysis")
        seed = resolve_seed(seed)
        with self._compared_matrix() as matrix:
            samples = _trace_samples(matrix, number_of_probes, seed, Status(self._verbose))
        return confidence_interval(samples.sum(axis=1))

    def spectrum(
        self, number_of_probes: int = 5, steps: int = 80, *, seed: int | None = None
    ) -> Spectrum:
        """Estimates the distribution of the eigenvalues.

        Stochastic Lanczos quadrature: each random vector gives `steps` eigenvalues
        of the Hessian within its Krylov space, with weights that sum to 1.

        Args:
            number_of_probes: How many random vectors. Defaults to 5.
            steps: How many products per vector, capped at the number of parameters.
                More steps resolve more of the bulk; the extremes are found first.
                Defaults to 80.
            seed: Integer seed for the vectors. `None` (the default) draws one from
                NumPy's global random state.

        Returns:
            A `Spectrum`, to be drawn with `plot_spectrum`.

        Reference:
            [Ghorbani et al., 2019](https://arxiv.org/abs/1901.10159), section 2.
        """
        check_integer("number_of_probes", number_of_probes, minimum=1)
        check_integer("steps", steps, minimum=1)
        linalg = import_extra("scipy.linalg", "analysis")
        seed = resolve_seed(seed)
        generator = np.random.default_rng(seed)
        size = sum(map(np.count_nonzero, scales(self.model, **self._rules)))
        steps = min(steps, size)
        eigenvalues, weights = [], []
        with self._counted_matrix(number_of_probes * steps) as matrix:
            for _ in range(number_of_probes):
                diagonal, off_diagonal = _lanczos(matrix, steps, generator)
                values, vectors = linalg.eigh_tridiagonal(diagonal, off_diagonal)
                # Fewer than `steps` if the Krylov space is smaller; the padding has weight 0.
                missing = (0, steps - len(values))
                eigenvalues.append(np.pad(values, missing, mode="edge"))
                weights.append(np.pad(vectors[0] ** 2, missing))
        metadata = {"model": self.model.name, "parameters": size, "seed": seed}
        metadata |= _describe(**self._rules)
        return Spectrum(np.array(eigenvalues), np.array(weights), metadata)

    def by_layer(
        self, number_of_probes: int = 30, *, tolerance: float = 1e-3, seed: int | None = None
    ) -> LayerCurvature:
        """Measures the curvature of the loss in each layer, with all other layers fixed.

        Args:
            number_of_probes: How many random vectors, as in `trace`. All layers use the
                same ones, so their traces sum to that of the Hessian. Defaults to 30.
            tolerance: Relative accuracy of the eigenvalues. Defaults to 1e-3.
            seed: Integer seed for the random vectors. `None` (the default) draws one
                from NumPy's global random state.

        Returns:
            A `LayerCurvature`, to be drawn with `plot_layers`. Layers in which nothing
            moves are left out.

        Reference:
            [Zhang et al., 2019](https://arxiv.org/abs/1902.01996), "Are all layers
            created equal?", and [Chatterji et al., 2020](
            https://arxiv.org/abs/1912.00528) compare layers by moving one at a time.
        """
        check_integer("number_of_probes", number_of_probes, minimum=2)
        check_number("tolerance", tolerance, minimum=0, below=1)
        for module in ("scipy.stats", "scipy.sparse.linalg"):
            import_extra(module, "analysis")
        seed, status = resolve_seed(seed), Status(self._verbose)
        traces, largest, sizes = [], [], []
        with self._compared_matrix() as matrix:
            groups = _by_layer(self.model, matrix.units)
            samples = _trace_samples(matrix, number_of_probes, seed, status)
            for _, members in tracked(groups, status, "layer"):
                kept = [unit * (index in members) for index, unit in enumerate(matrix.units)]
                layer = _Operator(matrix.product, kept)
                values, _ = _eigenpairs(layer, 1, ENDS["largest"], tolerance=tolerance, seed=seed)
                _check_finite(values)
                largest.append(values[0])
                traces.append(confidence_interval(samples[:, members].sum(axis=1)))
                sizes.append(layer.size)
        metadata = {"model": self.model.name, "parameters": sizes, "seed": seed}
        rules = self._rules | {"layers": None}
        metadata |= _describe(**rules) | {"layers": [name for name, _ in groups]}
        return LayerCurvature(np.array(largest), np.array(traces), metadata)

    def _matrix(self):
        """T·H·T at the weights that the model has now."""
        self._products.check_model()
        return _bound(self._products, self.model, **self._rules)

    def _compared_matrix(self):
        """The same matrix; its first product again compares the loss with `model.evaluate`."""
        self._products.compare_again()
        return self._matrix()

    @contextlib.contextmanager
    def _counted_matrix(self, number):
        """The same matrix, with a bar that counts its products."""
        progress = Progress(number, Status(self._verbose), unit="product")
        with self._compared_matrix() as matrix:

            def product(direction):
                moved = matrix.product(direction)
                progress.advance(1)
                return moved

            try:
                yield _Operator(product, matrix.units)
            finally:
                progress.finish()


def meters(model, data, *, number_of_probes, tolerance, seed):
    """Makes functions that measure the curvature at the weights that a model has when called.

    The functions share one graph, which often takes longer to make than to use.

    Args:
        model: A compiled and built `keras.Model`.
        data: A `Dataset`.
        number_of_probes: As in `Hessian.trace`.
        tolerance: As in `Hessian.eigenvalues`.
        seed: Integer seed, the same each time.

    Returns:
        Dict of functions without arguments, by name. Each returns a float or an
        `Estimate`, NaN where the Hessian is not finite, or all filters are zero.
    """
    products = _Products(model, data)

    def largest(normalize):
        try:
            scales(model, normalize)
        except ValueError:
            # All filters are zero, as they may be before training.
            return float("nan")
        with _bound(products, model, normalize) as matrix:
            values, _ = _eigenpairs(matrix, 1, ENDS["largest"], tolerance=tolerance, seed=seed)
        return float(values[0])

    def trace():
        with _bound(products, model) as matrix:
            samples = list(_draw_trace(matrix, number_of_probes, seed, Status(0)))
        return confidence_interval(np.sum(samples, axis=1))

    return {
        "largest_eigenvalue": functools.partial(largest, None),
        "scale_free_eigenvalue": functools.partial(largest, "filter"),
        "trace": trace,
    }


@evaluating(**AROUND, metric="convexity")
def evaluate_convexity(
    model: keras.Model,
    x: Data,
    y: Data = None,
    number_of_points: Points = 11,
    *,
    ignore: Ignore = None,
    tolerance: float = 1e-2,
    **options: Unpack[MeasuringAround],
) -> LossSurface:
    """Measures how far the loss is from convex over a plane.

    A plane may look convex where the loss is not, so this computes the extreme
    eigenvalues of the whole Hessian at each point or, with `layers`, of the Hessian of
    these layers. `extent` must be numbers.

    Args:
        model: A compiled and built `keras.Model`. It is left as it was.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        number_of_points: Points per axis; see `evaluate_surface`. Each takes
            dozens of passes over the data. Defaults to 11.
        ignore: As in `Hessian`, for the eigenvalues; random directions leave biases
            and normalization parameters as they are in any case. The reference
            implementation uses `"biasbn"`. Defaults to `None`.
        tolerance: Relative accuracy of the eigenvalues. Defaults to 1e-2, finer
            than colors show.
        **options: Where and how it is measured; see `MeasuringAround` and `Measuring`.

    Returns:
        A `LossSurface` with the values `"largest"` and `"smallest"`, the
        eigenvalues λmax and λmin, `"convexity"`, the ratio |λmin / λmax|, and
        `"loss"`. The ratio is 0 where no eigenvalue is negative; it and the
        eigenvalues are NaN where the Hessian is not finite. `plot_convexity`
        draws it.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, or for any of the
            reasons that `Hessian` lists.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 6.
    """
    grid = Grid.of(number_of_points, options["extent"])
    check_number("tolerance", tolerance, minimum=0, below=1)
    call = Evaluation(model, [one_dataset(x, y)], LossSurface, options)
    check_differentiates("Curvature")
    check_choice("ignore", ignore, IGNORE_RULES)
    directions, origin = call.choose(2, exactly=True)
    # A flag per weight, since the layers of the model in a worker are not these objects.
    chosen = [bool(unit.any()) for unit in scales(model, None, ignore, options["layers"])]
    others = {"ignore": np.array(chosen), "tolerance": np.array(tolerance)}
    how = {"chosen": chosen, "seed": origin.get("seed", 0), "tolerance": tolerance}
    engine = functools.partial(_convexity_engine, **how)
    plan = Plan(
        [(directions, grid.points)],
        {"directions": directions, "coordinates": grid.axes} | others,
        order=grid.order,
        engines={"hessian": engine},
        # Not the eigenvalues: one near 0 is pure rounding error.
        compared=["loss"],
    )
    (surface,) = call.along(plan, grid.surface, origin)
    return surface


class _Operator:
    """T·H·T as a matrix over the entries that move, which are put into one vector."""

    def __init__(self, product, units):
        """Takes a product with H, and T as a list of arrays."""
        self.product, self.units = product, units
        self._moves = flat(units) != 0
        self.size = int(np.count_nonzero(self._moves))

    def __call__(self, vector):
        """Multiplies the matrix by a vector."""
        return flat(times(self.units, self.product(self.direction(vector))))[self._moves]

    def direction(self, vector):
        """The direction that a vector stands for: T times it."""
        whole = np.zeros(self._moves.shape, np.float32)
        whole[self._moves] = np.ravel(vector)
        ends = np.cumsum([unit.size for unit in self.units])
        parts = zip(self.units, np.split(whole, ends[:-1]), strict=True)
        return [unit * part.reshape(unit.shape) for unit, part in parts]


class _Products:
    """Products of H with directions, at the weights that a model has now; one graph for all."""

    def __init__(self, model, data):
        """Takes a model and a `Dataset`."""
        self._model, self._data = model, data
        self._made_for = _in_the_graph(model)
        with evaluated(model):
            self._differentiate, self._batches = differentiator(model, data)
        self._is_checked = self._is_compared = False

    def __call__(self, state, direction):
        """Multiplies H by a direction, at the weights of a `State`'s model."""
        differentiate, batches = self._differentiate, self._batches
        if self._is_compared:
            return mean_derivative(state, differentiate, batches, direction, "product")[1]
        reported = reported_loss(self._model, self._data)
        # The checks cannot decide if derivatives are not finite, so a later product repeats them.
        is_decided = self._is_checked or check_derivatives(
            state, differentiate, next(iter(batches))
        )
        loss, moved = mean_derivative(state, differentiate, batches, direction, "product")
        if np.isfinite([loss, reported]).all():
            self._compare(loss, reported)
            self._is_checked = self._is_compared = is_decided
        return moved

    def compare_again(self):
        """Makes the next product compare the loss with what `model.evaluate` reports."""
        self._is_compared = False

    def check_model(self):
        """Refuses a model that was compiled again, or trains other weights."""
        pairs = itertools.zip_longest(self._made_for, _in_the_graph(self._model))
        if any(one is not other for one, other in pairs):
            raise ValueError(
                "`model` was compiled again, or trains other weights, since this `Hessian` was "
                "made, which is that of the loss it had then. Make a new one."
            )

    def _compare(self, loss, reported):
        try:
            check_loss(self._model, loss, reported)
        except ValueError as error:
            if self._is_checked:
                error.add_note("They agreed before: `model` has changed. Make a new `Hessian`.")
            raise


def _in_the_graph(model):
    """The objects that a graph was made with; each `compile` makes another optimizer."""
    return [*model.trainable_variables, model.loss, model.optimizer]


@contextlib.contextmanager
def _bound(products, model, normalize=None, ignore="auto", layers=None):
    """Yields T·H·T at the weights that a model has now; one `State` serves many products."""
    with evaluated(model) as state:
        units = scales(model, normalize, ignore, layers)
        yield _Operator(functools.partial(products, state), units)


def _describe(normalize, ignore, layers):
    """The metadata that tell T·H·T or a part of the Hessian from the whole Hessian."""
    ignore = resolve_ignore(normalize, ignore)
    units = {"normalize": normalize, "ignore": ignore} if normalize or ignore else {}
    return units if layers is None else units | {"layers": layer_names(layers)}


def _by_layer(model, units):
    """Pairs for the layers in which something moves: the name, and the indices of the weights."""
    members = {}
    for index, (layer, unit) in enumerate(zip(owners(model), units, strict=True)):
        if unit.any():
            members.setdefault(layer, []).append(index)
    names = [layer.name for layer in members]
    # Layers of different models within the model may have the same name.
    return [
        (layer.name if names.count(layer.name) == 1 else layer.path, held)
        for layer, held in members.items()
    ]


def _trace_samples(operator, number, seed, status):
    """Array of what `_draw_trace` yields; refuses a non-finite Hessian at once."""
    samples = []
    for sample in _draw_trace(operator, number, seed, status):
        _check_finite(sample)
        samples.append(sample)
    return np.array(samples, dtype=float)


def _draw_trace(operator, number, seed, status):
    """Yields what each weight adds to an unbiased estimate of the trace, per random vector."""
    generator = np.random.default_rng(seed)
    for _ in tracked(range(number), status, "vector"):
        signs = [generator.choice(np.float32([-1, 1]), unit.shape) for unit in operator.units]
        probe = times(operator.units, signs)
        pairs = zip(probe, operator.product(probe), strict=True)
        yield [np.vdot(part, moved) for part, moved in pairs]


def _convexity_engine(state, data, interrupt, *, chosen, tolerance, seed):
    """Measures the loss and the extreme eigenvalues of its Hessian, point by point."""
    (dataset,) = data
    evaluate = evaluator(state.model, interrupt)
    units = [unit * moves for unit, moves in zip(scales(state.model), chosen, strict=True)]
    products = functools.partial(_Products(state.model, dataset), state)
    operator = _Operator(products, units)

    def measure_here(_):
        loss = {"loss": evaluate(dataset)["loss"]}
        largest, smallest = (
            _eigenpairs(operator, 1, end, tolerance=tolerance, seed=seed)[0][0]
            for end in ("LA", "SA")
        )
        interrupt()
        return [_with_ratio(largest, smallest) | loss]

    return point_by_point(state, measure_here)


def _with_ratio(largest, smallest):
    # Without a negative eigenvalue the loss is convex there, however flat; NaN stays NaN.
    negative = np.minimum(smallest, 0.0)
    ratio = abs(negative / largest) if largest else np.inf
    return {"convexity": ratio if negative else 0.0, "largest": largest, "smallest": smallest}


def _eigenpairs(operator, number, end, *, tolerance, seed):
    """Extreme eigenvalues and their directions; NaN and `[]` if the Hessian is not finite."""
    size = operator.size
    if number >= size + (size <= DENSE):
        raise ValueError(
            f"`number` must be {'at most' if size <= DENSE else 'less than'} the {size} parameters "
            f"that move. Received {number}{', from both ends' if end == 'BE' else ''}."
        )
    start = np.random.default_rng(seed).normal(size=size).astype("float32")
    moved = operator(start)
    if not np.isfinite(moved).all():
        return np.full(number, np.nan), []
    if size <= DENSE:
        matrix = np.stack([operator(unit) for unit in np.eye(size, dtype="float32")])
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    elif not moved.any():
        # ARPACK takes a Hessian of zeros for a failure. All directions are its eigenvectors.
        values, vectors = np.zeros(number), np.eye(size, number, dtype="float32")
    else:
        values, vectors = _arpack(operator, number, end, tolerance=tolerance, start=start)
    order = _most_extreme(values, number, end)
    return values[order].astype(float), [operator.direction(vectors[:, index]) for index in order]


def _most_extreme(values, number, end):
    """The indices of the most extreme values from an end, or half as many from both ends."""
    keys = {"LA": -values, "SA": values, "LM": -np.abs(values), "BE": -values}
    order = np.argsort(keys[end])
    half = number // 2
    # Both halves come from one order, so that none of several equal values is taken twice.
    return np.append(order[:half], order[::-1][:half]) if end == "BE" else order[:number]


def _arpack(operator, number, end, *, tolerance, start):
    linalg = import_extra("scipy.sparse.linalg", "analysis")
    shape = operator.size, operator.size
    try:
        matrix = linalg.LinearOperator(shape, operator, dtype="float32")
        return linalg.eigsh(matrix, number, which=end, tol=tolerance, v0=start)
    except linalg.ArpackNoConvergence as error:
        found = len(error.eigenvalues)
        error.add_note(f"{found} of {number} eigenvalues were found. Raise `tolerance`.")
        raise


def _check_finite(values):
    if not np.isfinite(values).all():
        raise ValueError(
            "The Hessian is not finite at the weights of `model`: there the loss or one of its "
            "derivatives is NaN or infinite. Check the loss with `model.evaluate`; half precision "
            "overflows above 65504."
        )


def _lanczos(operator, steps, generator):
    """The tridiagonal matrix of a Hessian in the Krylov space of a random vector."""
    vector = generator.normal(size=operator.size)
    basis = [vector / np.linalg.norm(vector)]
    diagonal, off_diagonal = [], []
    for step in range(steps):
        moved = operator(basis[-1].astype("float32")).astype(float)
        # Raised at once, since every product repeats the checks as long as none was finite.
        _check_finite(moved)
        diagonal.append(basis[-1] @ moved)
        # Orthogonalized twice: otherwise rounding would find the same eigenvalues again.
        for _ in range(2):
            for other in basis:
                moved -= (other @ moved) * other
        length = np.linalg.norm(moved)
        if step == steps - 1 or length <= 1e-6 * abs(max(diagonal, key=abs)):
            break
        off_diagonal.append(length)
        basis.append(moved / length)
    return np.array(diagonal), np.array(off_diagonal)
