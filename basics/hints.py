"""Hints: what was meant by a name that does not exist.

Users of other libraries try the names that they know. An error says what these are called here.
"""

import difflib
import functools
import inspect
import re
import typing
from collections.abc import Callable

from losslandscape.basics.types import Call

# The name that a thing has here, and the names that it has elsewhere.
ELSEWHERE = {
    "number_of_points": "num_points n_points npoints points num steps num_steps n_steps resolution",
    "number_of_directions": "num_directions n_directions repeats",
    'scale="log"': "log logscale log_scale logy log_y yscale zscale norm symlog logarithmic",
    "limits": "vmin vmax zlim ylim clim levels",
    "levels": "vmin vmax clim limits contour contours contourf 2d plane heatmap",
    "extent": "xlim range bounds alphas span distance",
    "dataset_labels": "label labels legend names",
    "labels": "label legend names dataset_labels",
    "cmap": "color colormap color_map colors palette",
    "view": "elev azim angle",
    "path": "filename file fname save save_path savefig output out",
    "seed": "random_state rng random_seed",
    "executor": "workers n_jobs pool",
    "checkpoint": "resume cache",
    "3d": "surface plot_surface space mesh",
    "number": "k top_k n num",
}
# Keywords for what the axes and figures of Matplotlib can do themselves.
MATPLOTLIB = {
    "title": "Call `set_title` of the axes that it returns.",
    "xlabel": "Call `set_xlabel` of the axes that it returns.",
    "ylabel": "Call `set_ylabel` of the axes that it returns.",
    "color": "Call `set_color` of the `lines` of the axes that it returns.",
    "dpi": "Call `savefig(path, dpi=...)` of the figure of the axes that it returns.",
    "fontsize": "Set `rcParams['font.size']` of Matplotlib.",
    "grid": "Call `grid` of the axes that it returns.",
}


def meant(name, accepted):
    """Returns the accepted name that is likely meant, in its own spelling, or `None`."""
    names = {each.lower(): each for each in accepted if isinstance(each, str)}
    word = str(name).lower()
    if word in names:
        return names[word]
    for here, others in ELSEWHERE.items():
        known = here.partition("=")[0]
        if word in others.split() and known in names:
            return here if len(names) > 2 else names[known]
        if word in others.split() and here.endswith('"log"') and "log" in names:
            return "log"
    begun = [each for each in names if len(word) > 2 and each.startswith(word)]
    close = begun or difflib.get_close_matches(word, names, 1)
    return names[close[0]] if close else None


def instead(name, accepted, draw=None):
    """Returns a sentence on what to use instead of a keyword that does not exist.

    Args:
        name: The keyword.
        accepted: The names of all keywords that exist.
        draw: A function that draws what the call returns, or `None`.
    """
    if draw is not None and name in inspect.signature(draw).parameters:
        return f"`{draw.__name__}` takes it, and draws what this returns."
    likely = meant(name, accepted)
    if likely is not None:
        return f"Did you mean `{likely}`?"
    if name in MATPLOTLIB:
        return MATPLOTLIB[name]
    return f"Accepted are {', '.join(sorted(accepted))}."


def check_options(name, options, accepted, draw=None):
    """Refuses keyword arguments that a call does not take, and says what was likely meant.

    Args:
        name: The name of the call.
        options: The keyword arguments.
        accepted: The names that the call takes; empty if it takes any.
        draw: As in `instead`.
    """
    unknown = [each for each in options if accepted and each not in accepted]
    if unknown:
        hint = instead(unknown[0], accepted, draw)
        raise TypeError(f"{name}() has no `{unknown[0]}`. {hint}")


def hinted(*, draw: Callable | None = None) -> Callable[[Call], Call]:
    """Makes a decorator: a call that does not fit the signature gets an error that says what does.

    Args:
        draw: A function that draws what the decorated one returns. Defaults to `None`.
    """

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            check_options(function.__name__, kwargs, _keywords(signature), draw)
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__name__}(): {error}.{_example(function)}") from None
            return function(*args, **kwargs)

        return call

    return decorate


def _keywords(signature):
    """The names of all keywords; none if any may be given."""
    names = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(name)
        elif typing.get_origin(parameter.annotation) is typing.Unpack:
            names += typing.get_args(parameter.annotation)[0].__annotations__
        else:
            return []
    return names


def _example(function):
    """How the docstring's example calls a function, if it fits on a line."""
    pattern = rf">>> .*?(\b{function.__name__}\(.*\))$"
    found = re.search(pattern, function.__doc__ or "", re.MULTILINE)
    return f" For example: {found[1]}." if found else ""
