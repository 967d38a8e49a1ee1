"""Monitoring: what training does to the landscape, as numbers over its epochs.

They are measured at the records of a finished training run, or while a model trains, for
the logs of `fit`. Training itself stays the same, to the last bit.
"""

__all__ = ["CurvatureSettings", "LandscapeLogger", "training_curvature"]

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict, Unpack

import keras
import numpy as np
import tensorflow as tf

from losslandscape.backends.current import check_differentiates
from losslandscape.basics.checks import (
    check_choice,
    check_compiled,
    check_integer,
    check_list,
    check_not_quantized,
    check_number,
    check_numbers,
    expanded,
    import_extra,
    warn,
)
from losslandscape.basics.hints import check_options
from losslandscape.basics.internals import schedule_of
from losslandscape.basics.types import Data, FilePath
from losslandscape.curvature.hessian import meters
from losslandscape.directions import RandomDirections, resolve_seed, scales
from losslandscape.evaluation import Evaluation, Plan, evaluate_line, evaluate_surface
from losslandscape.measuring.datasets import one_dataset, read_dataset
from losslandscape.measuring.engines import evaluator, on_device, point_by_point
from losslandscape.measuring.grids import highest_low
from losslandscape.measuring.options import Measuring, evaluating
from losslandscape.measuring.state import evaluated, preserved
from losslandscape.paths.trajectory import (
    History,
    between_records,
    legs_of_records,
    read_history,
    times_of,
)
from losslandscape.plotting import (
    plot_levels,
    plot_line,
    plot_training_curvature,
    show_again,
    to_png,
)
from losslandscape.values.measures import Estimate, confidence_interval
from losslandscape.values.surfaces import TrainingCurvature

MEASURES = ("largest_eigenvalue", "scale_free_eigenvalue", "trace", "half_width")
# A half-width is looked for from the first of these powers of 2, and between the others; halving an
# interval of 1 between exponents this many times makes it exact to 1 %.
NEAR, ENDS, HALVINGS = -3, (-30, 4), 5
# What an image by name shows: how it is measured, at how many points (per axis), and drawn.
IMAGES = {"line": (evaluate_line, 21, plot_line), "levels": (evaluate_surface, 11, plot_levels)}
# The name of images in TensorBoard, and of the run that they belong to.
IMAGE_TAG = "landscape"
# Callbacks that write all numbers they get, without a sign that any are lacking.
WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


class CurvatureSettings(TypedDict, total=False):
    """What is measured again and again during training, and how exactly.

    Attributes:
        number_of_probes: For the trace; see `Hessian.trace`. Defaults to 10.
        number_of_directions: For the half-width, at least 2. Defaults to 5.
        rise: For the half-width; see `half_widths`. Defaults to 1.0. The half-width is
            infinite where the loss at the coordinate 16 has risen less than this.
        tolerance: For eigenvalues; see `Hessian.eigenvalues`. Defaults to 1e-2, finer than
            a plot shows.
        seed: Integer seed for all random vectors. `None` draws one from NumPy's global random
            state, and is the default of `training_curvature`. That of a `LandscapeLogger` is
            0, since it must not change what training draws.
    """

    number_of_probes: int
    number_of_directions: int
    rise: float
    tolerance: float
    seed: int | None


CURVATURE = {
    "number_of_probes": 10,
    "number_of_directions": 5,
    "rise": 1.0,
    "tolerance": 1e-2,
    "seed": None,
}


class MeasuringCurvature(CurvatureSettings, Measuring, total=False):
    """The settings, and the options of every call."""


# `training_curvature` shows in `help` what the options mean.
MeasuringCurvature.__doc__ = CurvatureSettings.__doc__


class Settings(NamedTuple):
    """What is measured, and how; see `CurvatureSettings`."""

    measures: tuple
    number_of_probes: int
    number_of_directions: int
    rise: float
    tolerance: float
    seed: int


@evaluating(**CURVATURE)
def training_curvature(
    model: keras.Model,
    history: History,
    x: Data,
    y: Data = None,
    measures: Sequence[str] = MEASURES,
    *,
    learning_rate: float | Callable[[float], float] | None = None,
    **options: Unpack[MeasuringCurvature],
) -> TrainingCurvature:
    """Measures the curvature of the loss at the records of a training run.

    In gradient descent the largest eigenvalue of the Hessian often rises until it reaches
    2/η, with the learning rate η, and stays there, at the edge of stability. With the
    momentum β of `SGD` this threshold is (2 + 2β)/η, and (2 + 2β)/((1 + 2β)·η) with
    Nesterov's. Steps on small batches are unstable at smaller eigenvalues; optimizers
    such as Adam do not step along the gradient, so it does not apply to them.

    Each record takes a while: for a small convolutional network, measured on the data it
    trains on, an eigenvalue took as long as 20 epochs, the trace 10 and the half-width
    20. A part of the data is often enough.

    Example:

    >>> history = WeightHistory("history")
    >>> model.fit(x_train, y_train, epochs=3, callbacks=[history], verbose=0)
    >>> curvature = training_curvature(model, history, x_train, y_train, seed=0)
    >>> plot_training_curvature(curvature)

    Args:
        model: A compiled and built `keras.Model`. It is left as it was. The weights that
            it trains now are those that count, at every record.
        history: What `read_history` reads: a `WeightHistory`, a folder of records or of
            saved models, or a list of files or models.
        x: Inputs, or a whole dataset if `y` is `None`; see `evaluate_lines`.
        y: Targets. Defaults to `None`.
        measures: Names of what to measure, by default all of

            - `"largest_eigenvalue"`, λmax of the Hessian;
            - `"scale_free_eigenvalue"`, the same with `normalize="filter"`;
            - `"trace"` of the Hessian, an estimate;
            - `"half_width"`, the mean over filter-normalized random directions,
              the same ones at each record but for their scale.
        learning_rate: A number, or an array with one per record, for the thresholds. `None`
            (the default) takes that of the model's optimizer if this is `SGD`: its
            schedule at the steps of the records, if it has one, and otherwise its
            current learning rate.
        **options: How it is measured; see `CurvatureSettings` and `Measuring`.

    Returns:
        A `TrainingCurvature`, to be drawn with `plot_training_curvature`. Where the
        Hessian is not finite, as after training has diverged, values are NaN.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`).
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value, or for any reason that
            `read_history` or `Hessian` has.

    Reference:
        [Cohen et al., 2021](https://arxiv.org/abs/2103.00065), section 3; for momentum,
        appendix B.
    """
    call = Evaluation(model, [one_dataset(x, y)], TrainingCurvature, options)
    settings = _settings(measures, options | {"seed": call.seed(options["seed"])})
    _check_model(model, settings)
    names, records = read_history(model, history)
    times, unit = times_of(names)
    thresholds = _thresholds(model, times, unit, learning_rate)
    plan = Plan(
        legs_of_records(model, records),
        {"records": records, "measures": np.frombuffer(repr(settings).encode(), "uint8")},
        between_records,
        engines={"curvature": functools.partial(_curvature_engine, settings=settings)},
        # An eigenvalue near 0 is pure rounding error.
        compared=["loss"],
    )

    def assemble(values, center, metadata):
        return TrainingCurvature(times, values, thresholds, center, metadata)

    origin = {"records": names, "unit": unit} | _described(settings)
    (found,) = call.along(plan, assemble, origin)
    return found


class LandscapeLogger(keras.callbacks.Callback):
    """Measures a model every few epochs, and adds the numbers to the logs of `fit`.

    `History`, `CSVLogger`, `TensorBoard`, `EarlyStopping` and other callbacks get the
    numbers like those of metrics. The first epoch of each `fit` is measured; in epochs in
    between the last numbers stand, since some callbacks expect the same names in every
    epoch, and none takes NaN well. A number that cannot be measured, for example because
    training diverged, is NaN, and causes a warning.

    Example:

    >>> logger = LandscapeLogger(("largest_eigenvalue", "trace"), x_train, y_train, every=2)
    >>> history = model.fit(x_train, y_train, epochs=4, callbacks=[logger], verbose=0)
    >>> sharpness = history.history["largest_eigenvalue"]
    >>> plot_training_curvature(logger.curvature)
    >>> def length(model):
    ...     return sum((weight**2).sum() for weight in model.get_weights()) ** 0.5
    >>> model.fit(x_train, y_train, callbacks=[LandscapeLogger({"length": length})], verbose=0)

    **Its place in the list of callbacks** is before all that read its numbers, since Keras
    calls them in this order. Put it first. Only `BackupAndRestore`, and a `ModelCheckpoint`
    that follows none of its numbers, are better before it: they then save an epoch before
    it is measured, which takes time and may be interrupted. Behind a callback that follows
    one of its numbers, training does not begin; behind `CSVLogger`, `RemoteMonitor` or
    `TensorBoard`, it warns. `EarlyStopping` restores the best weights only when training
    ends, so the numbers are always those of the epoch itself. Behind
    `SwapEMAWeights(swap_on_epoch=True)` they are those of the averaged weights.

    Training is bit-identical with and without this. Only the measuring takes extra time: all
    that `training_curvature` measures, on all training data, takes about as long as 70
    epochs each time. A part of the data is often enough.

    During one `fit` only variables are expected to change, so the graphs that measures by name
    need are traced once and held until it ends, as `fit` holds its own.

    Args:
        measures: Names of what to measure, those of `training_curvature` (the default is
            all of them); or a dict of functions by the names that the numbers get in the
            logs. Each takes the model and returns a float. Those that draw random numbers
            should have a `seed`, so that only the model differs from epoch to epoch.
        x: Inputs to measure on, or a whole dataset if `y` is `None`; see
            `evaluate_lines`. Functions have their own. Defaults to `None`.
        y: Targets. Defaults to `None`.
        every: How many epochs apart, besides the first one. Defaults to 1. A callback with
            a `patience` counts epochs, so give it at least as many.
        live: Whether to draw the numbers in one figure, redrawn each time: below a
            notebook's cell, in a window, or in memory where there is neither. Defaults
            to `False`.
        image: What to draw for TensorBoard each time: `"line"`, the loss on `x` and `y` at
            21 points along a random direction; `"levels"`, the loss at 121 points of a
            plane; or a function that takes the model and returns Matplotlib axes. The
            directions are the same each time but for their scale. For images alone, pass
            `{}` as `measures`. Defaults to `None`.
        log_dir: The folder of TensorBoard's logs, as for `keras.callbacks.TensorBoard`. The
            images are in the run `landscape` there. Defaults to `None`, for no images.
        batch_size: Samples per batch, for arrays. `None` (the default) makes batches as
            large as the model's activations allow.
        **settings: How exactly the measures by name are taken; see `CurvatureSettings`.

    Attributes:
        curvature: A `TrainingCurvature` of what was measured so far, with the thresholds
            at the learning rate of each time, or `None`.
        figure: The live figure, or `None`.

    Raises:
        ImportError: If SciPy is not installed (the extra `analysis`), for names.
        TypeError: If an argument has the wrong type.
        ValueError: If an argument has an unusable value; when training begins, if the
            data or the model cannot be used, or a callback before this one follows its
            numbers; or, when an epoch ends, if the logs already have one of the names.

    Reference:
        [Cohen et al., 2021](https://arxiv.org/abs/2103.00065): in gradient descent with
        the learning rate η, the largest eigenvalue rises to about 2 / η.
    """

    def __init__(
        self,
        measures: Sequence[str] | Mapping[str, Callable[[keras.Model], float]] = MEASURES,
        x: Data = None,
        y: Data = None,
        *,
        every: int = 1,
        live: bool = False,
        image: Literal["line", "levels"] | Callable[[keras.Model], Any] | None = None,
        log_dir: FilePath | None = None,
        batch_size: int | None = None,
        **settings: Unpack[CurvatureSettings],
    ) -> None:
        super().__init__()
        accepted = ("measures", "x", "y", "every", "live", "image", "log_dir", "batch_size")
        check_options("LandscapeLogger", settings, (*accepted, *CURVATURE))
        check_integer("every", every, minimum=1)
        if batch_size is not None:
            check_integer("batch_size", batch_size, minimum=1)
        self.every, self.live = every, live
        self.figure = self._axes = self._shown = None
        # By epoch: what was measured, and the threshold of stability then.
        self._found = {}
        settings = CURVATURE | {"seed": 0} | settings
        settings["seed"] = resolve_seed(settings["seed"])
        options = {"seed": settings["seed"], "batch_size": batch_size, "verbose": 0}
        self._draw_image = _checked_image(image, log_dir, (x, y), options)
        self._log_dir = None if log_dir is None else expanded("log_dir", log_dir)
        self._writer = None
        if isinstance(measures, dict):
            self._make_meters = _checked_functions(measures, x, image)
            self.measures, self._metadata = tuple(measures), {}
            return
        settings = _settings(measures, settings)
        if x is None:
            raise ValueError(
                "`x` must be the data to measure on, as in `LandscapeLogger(measures, x, y)`. "
                "Received None."
            )
        self._make_meters = functools.partial(_meters_on, (x, y), batch_size, settings)
        self.measures, self._metadata = settings.measures, _described(settings)

    @property
    def curvature(self) -> TrainingCurvature | None:
        """A `TrainingCurvature` of what was measured so far, or `None`."""
        if not self._found:
            return None
        rows, thresholds = zip(*self._found.values(), strict=True)
        names = dict.fromkeys(name for row in rows for name in row)
        values = {name: np.array([row.get(name, np.nan) for row in rows]) for name in names}
        metadata = {"unit": "epoch", "model": self.model.name} | self._metadata
        times = np.array(list(self._found), float)
        return TrainingCurvature(times, values, np.array(thresholds), {}, metadata)

    def on_train_begin(self, logs=None):  # noqa: ARG002
        """Prepares the measures; refuses data, models and a place that cannot be used."""
        _check_place(self)
        self._meters = self._last = None
        # Some models have weights only once they have seen data.
        if self.model.trainable_variables:
            self._prepare()

    def on_train_end(self, logs=None):  # noqa: ARG002
        """Drops the graphs: before another `fit`, what they read may change."""
        self._meters = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def on_epoch_end(self, epoch, logs=None):
        """Adds the numbers to the logs."""
        if self._meters is None:
            self._prepare()
        logs = {} if logs is None else logs
        taken = sorted(set(self.measures) & logs.keys())
        if taken:
            raise ValueError(
                f"`measures` must have names that the logs of training do not have. Received "
                f"{taken}, besides {sorted(logs)}."
            )
        if self._last is None or (epoch + 1) % self.every == 0:
            self._measure(epoch)
        logs.update(self._last)

    def _measure(self, epoch):
        found = {}
        for name, measure in self._meters.items():
            found |= self._numbers(name, measure)
        self._last = {name: found[name] for name in self.measures}
        # Another fit may start over.
        self._found = {time: row for time, row in self._found.items() if time <= epoch}
        self._found[epoch + 1] = found, _threshold(self.model.optimizer)
        if self.live:
            self._draw()
        if self._draw_image is not None:
            self._write_image(epoch)

    def _prepare(self):
        with preserved(self.model):
            self._meters = self._make_meters(self.model)

    def _numbers(self, name, measure):
        with preserved(self.model):
            # A failure here must not end hours of training.
            try:
                return _by_name(name, measure())
            except Exception as error:
                warn(f"Could not measure {name!r}: {type(error).__name__}: {error}")
                return {name: np.nan}

    def _draw(self):
        try:
            for ax in (self._axes or {}).values():
                ax.clear()
            self._axes = plot_training_curvature(self.curvature, self._axes)
            self.figure = next(iter(self._axes.values())).figure
            self._shown = show_again(self.figure, self._shown)
        except Exception as error:
            warn(f"Could not draw what was logged: {type(error).__name__}: {error}")

    def _write_image(self, epoch):
        with preserved(self.model):
            try:
                axes = np.ravel(np.array(self._draw_image(self.model), dtype=object))
                if self._writer is None:
                    self._writer = tf.summary.create_file_writer(str(self._log_dir / IMAGE_TAG))
                # Keras' own callback counts epochs from 0, too.
                _write_png(self._writer, to_png(axes[0]), epoch)
            except Exception as error:
                warn(f"Could not draw the landscape: {type(error).__name__}: {error}")


def _write_png(writer, png, step):
    """Writes what `tf.summary.image` would, which is there only beside TensorBoard itself."""
    # Every PNG file begins with its width and height.
    sides = [str(int.from_bytes(png[first : first + 4], "big")) for first in (16, 20)]
    metadata = tf.compat.v1.SummaryMetadata(plugin_data={"plugin_name": "images"})
    # `TensorBoard(update_freq=...)` lets only some steps be recorded.
    with writer.as_default(), tf.summary.record_if(True):
        tf.summary.write(IMAGE_TAG, tf.constant([*sides, png]), step=step, metadata=metadata)
    writer.flush()


def _check_place(logger):
    """Refuses, or warns of, callbacks that are called before the numbers are in the logs."""
    before = _callbacks_before(logger)
    following = [each for each in before if getattr(each, "monitor", None) in logger.measures]
    if following:
        names = ", ".join(f"{type(each).__name__} ({each.monitor!r})" for each in following)
        raise ValueError(
            "`callbacks` must have `LandscapeLogger` before those that follow its numbers. "
            f"Received it after {names}: put it first."
        )
    if logger.measures and any(isinstance(each, WRITERS) for each in before):
        names = ", ".join(type(each).__name__ for each in before if isinstance(each, WRITERS))
        warn(
            f"`LandscapeLogger` comes after {names} in `callbacks`, where its numbers will be "
            "missing. Put it first."
        )


def _callbacks_before(callback):
    """The callbacks that `fit` calls before this one, as far as that can be told."""
    # Keras tells a callback nothing of the list that calls it.
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList) and callback in caller.callbacks:
            return caller.callbacks[: caller.callbacks.index(callback)]
        frame = frame.f_back
    return []


def _settings(measures, settings):
    """Makes `Settings` of names, or of a single one; refuses what cannot be used."""
    is_single = isinstance(measures, str)
    names = (measures,) if is_single else tuple(check_list("measures", measures))
    settings = Settings(names, *(settings[name] for name in CURVATURE))
    for name in settings.measures:
        check_choice("measures", name, MEASURES)
    if not settings.measures:
        raise ValueError(f"`measures` is empty. Pass some of {', '.join(map(repr, MEASURES))}.")
    check_integer("number_of_probes", settings.number_of_probes, minimum=2)
    check_integer("number_of_directions", settings.number_of_directions, minimum=2)
    check_number("rise", settings.rise, above=0, below=np.inf)
    check_number("tolerance", settings.tolerance, minimum=0, below=1)
    for module in ("scipy.stats", "scipy.sparse.linalg"):
        import_extra(module, "analysis")
    return settings


def _described(settings):
    return settings._asdict() | {"measures": list(settings.measures)}


def _checked_image(image, log_dir, dataset, options):
    """Makes a function of a model that draws the loss around it; `None` for no image."""
    if (image is None) != (log_dir is None):
        raise ValueError(
            "`image` and `log_dir` must be given together: what to draw for TensorBoard, and the "
            f"folder of its logs. Received image={image!r} and log_dir={log_dir!r}."
        )
    if image is None or callable(image):
        return image
    check_choice("image", image, tuple(IMAGES))
    if dataset[0] is None:
        raise ValueError(f"`x` must be the data to draw the {image!r} of the loss on.")
    evaluate, number, draw = IMAGES[image]
    return lambda model: draw(evaluate(model, *dataset, number, **options))


def _checked_functions(measures, x, image=None):
    """Makes a function of a model that returns the caller's functions by name, bound to it."""
    if not measures and image is None:
        raise ValueError("`measures` is empty. Pass a function of the model by its name.")
    if not all(map(callable, measures.values())):
        raise TypeError(
            "`measures` must be names of measures, or a dict of functions by name. Received "
            f"{measures!r}."
        )
    if x is not None and not isinstance(image, str):
        raise ValueError(
            "`x` is for what is given by name, but functions were given, which have data of their "
            "own. Leave it out."
        )
    functions = dict(measures)
    return lambda model: {name: functools.partial(f, model) for name, f in functions.items()}


def _check_model(model, settings):
    check_compiled(model)
    check_not_quantized(model)
    check_differentiates("Curvature")
    if {"scale_free_eigenvalue", "half_width"} & set(settings.measures):
        # Refuses a model without filters.
        scales(model, "filter")


def _meters_on(dataset, batch_size, settings, model):
    _check_model(model, settings)
    data = read_dataset(model, one_dataset(*dataset), batch_size)
    return _meters(model, data, settings, lambda: None)


def _meters(model, data, settings, interrupt):
    """Functions by name that measure a model at the weights it has when they are called."""
    evaluate = evaluator(model, lambda *_, **__: interrupt())
    made = {
        "loss": lambda: evaluate(data)["loss"],
        "half_width": lambda: _half_width(model, lambda: evaluate(data)["loss"], settings),
    }
    made |= meters(
        model,
        data,
        number_of_probes=settings.number_of_probes,
        tolerance=settings.tolerance,
        seed=settings.seed,
    )
    return {name: made[name] for name in ("loss", *settings.measures)}


def _curvature_engine(state, data, interrupt, *, settings):
    """Measures the loss and its curvature, point by point."""
    (dataset,) = data
    made, center = _meters(state.model, dataset, settings, interrupt), {}

    def measure_all():
        found = {}
        for name, meter in made.items():
            found |= _by_name(name, meter())
            interrupt()
        return found

    def measure_here(point):
        nonlocal center
        if point.any():
            return [measure_all()]
        # Only the loss there is checked again at the end.
        center = center | {"loss": made["loss"]()} if center else measure_all()
        return [center]

    return point_by_point(state, measure_here)


def _half_width(model, loss_here, settings):
    """The mean half-width along random directions from the current weights of a model."""
    level = loss_here() + settings.rise
    if not np.isfinite(level):
        return Estimate(np.nan, np.nan, np.nan)
    try:
        drawn = RandomDirections(model, settings.number_of_directions, settings.seed)
    except ValueError:
        # All filters are zero, as they may be before training.
        return Estimate(np.nan, np.nan, np.nan)
    with evaluated(model) as state:
        directions = on_device(drawn, state.moved)

        def reach(direction, sign):
            def is_low(exponent):
                state.rewind()
                state.move(state.values, [direction], np.array([sign * 2.0**exponent]))
                # A loss that is not finite counts as infinite.
                return loss_here() < level

            exponent = highest_low(is_low, NEAR, ENDS, HALVINGS)
            # The middle of the interval in which it becomes high.
            return 2.0 ** (exponent + 2.0 ** -(HALVINGS + 1)) if exponent < ENDS[1] else np.inf

        widths = [np.mean([reach(direction, sign) for sign in (-1, 1)]) for direction in directions]
    return confidence_interval(widths)


def _by_name(name, number):
    """A number by name, with the ends of its interval if it is an estimate."""
    if not isinstance(number, Estimate):
        return {name: float(number)}
    return dict(zip((name, f"{name}_low", f"{name}_high"), map(float, number), strict=True))


def _thresholds(model, times, unit, learning_rate):
    """The threshold of stability at each record."""
    optimizer = _unwrapped(model.optimizer)
    if learning_rate is not None:
        rates = check_numbers("learning_rate", learning_rate)
        is_usable = np.isfinite(rates) & (rates > 0)
        if rates.shape not in ((), times.shape) or not is_usable.all():
            raise ValueError(
                f"`learning_rate` must be a number above 0, or one for each of the {len(times)} "
                f"records. Received {learning_rate!r}."
            )
        return np.broadcast_to(_stable_up_to(optimizer, rates), times.shape)
    if not isinstance(optimizer, keras.optimizers.SGD):
        return np.full(times.shape, np.nan)
    schedule = schedule_of(optimizer)
    if schedule is None:
        return np.full(times.shape, _threshold(optimizer))
    steps = times * (int(optimizer.iterations) / times[-1] if unit == "epoch" else 1)
    if unit == "record" or not steps.any():
        # The steps at which these records were made are unknown.
        return np.full(times.shape, np.nan)
    return _stable_up_to(optimizer, np.array([float(schedule(step)) for step in steps]))


def _threshold(optimizer):
    """The threshold of stability at the learning rate that an optimizer has now."""
    optimizer = _unwrapped(optimizer)
    if not isinstance(optimizer, keras.optimizers.SGD):
        return np.nan
    return _stable_up_to(optimizer, float(optimizer.learning_rate))


def _stable_up_to(optimizer, rates):
    """The largest eigenvalue of a quadratic loss that SGD still descends at these rates."""
    momentum = getattr(optimizer, "momentum", 0.0)
    factor = 2 + 2 * momentum
    if getattr(optimizer, "nesterov", False):
        factor /= 1 + 2 * momentum
    return factor / rates


def _unwrapped(optimizer):
    # In mixed precision the optimizer is within another one, which scales the loss.
    return getattr(optimizer, "inner_optimizer", optimizer)
