"""What a mixer can take over from the one that it replaces.

A rule belongs to a pair of mixers (``register_warm_start``) or to one mixer that can act as pooling
(``register_pooling_start``). A file with a mixer of your own may register rules for it; without any, the mixer still
takes its own weights back, at any kernel size, and starts at random in another one's place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mixlab.errors import UserError, expected, unknown
from mixlab.mixers import MIXERS, Mixer
from mixlab.registry import Part
from mixlab.weights.kernels import fitted, kernels, same_dilation

INITS = ("random", "warm", "pooling")


@dataclass(frozen=True)
class Made:
    """A new mixer's entry and where it comes from."""

    value: Tensor
    how: str = ""
    """How it was made; empty for the same numbers."""
    origins: tuple[str, ...] = ()
    """The former mixer's entries that it was made of; empty for the one of the same name."""


@dataclass(frozen=True)
class Target:
    """The pooling that a mixer shall act as: that of the mixer it replaces, or ``mixlab.mixers`` pooling's default."""

    kernel_size: Any = 3
    subtract_input: bool = True
    replaces: bool = False
    """There is such a pooling in the model."""


Entries = dict[str, Made]
Convert = Callable[[Any, Any], Entries]
Start = Callable[[Any, Target], tuple[dict[str, Tensor], str]]


@dataclass(frozen=True)
class WarmStart:
    """Carries weights from a mixer to another one; options in ``inherits`` that are not given are the former one's."""

    convert: Convert
    inherits: tuple[str, ...]


@dataclass(frozen=True)
class PoolingStart:
    """Lets a mixer start as pooling; ``options`` of the target, by the mixer's own names, are set where not given."""

    start: Start
    inherits: tuple[str, ...]


WARM_STARTS: dict[tuple[str, str], WarmStart] = {}
POOLING_STARTS: dict[str, PoolingStart] = {}


def register_warm_start(former: str, mixer: str, *, inherits: tuple[str, ...] = ()) -> Callable[[Convert], Convert]:
    """Decorator for a rule that fills ``mixer`` from the weights of ``former``.

    The function takes both modules and returns the entries of the new one's state dict that it can fill. It raises a
    UserError where the weights would mean something else.
    """

    def add(function: Convert) -> Convert:
        WARM_STARTS[former, mixer] = WarmStart(function, inherits)
        return function

    return add


def register_pooling_start(mixer: str, *, inherits: tuple[str, ...] = ("kernel_size",)) -> Callable[[Start], Start]:
    """Decorator for a rule that lets ``mixer`` act as pooling.

    The function takes the module and the :class:`Target` and returns the entries to set and a sentence on what the
    mixer then computes.
    """

    def add(function: Start) -> Start:
        POOLING_STARTS[mixer] = PoolingStart(function, inherits)
        return function

    return add


def check_init(init: str, where: str = "init") -> str:
    """The name itself, or a UserError."""
    if init not in INITS:
        raise unknown(where, str(init), INITS)
    return init


def options_of(part: Part) -> dict[str, Any]:
    """A mixer's options, defaults filled in, lists as tuples."""
    defaults = {k: p.default for k, p in MIXERS.options(part.name).items() if p.default is not p.empty}
    return {k: tuple(v) if isinstance(v, list) else v for k, v in {**defaults, **part.options}.items()}


def same_mixer(a: Part, b: Part) -> bool:
    """The two are the same mixer with the same options."""
    return a.name == b.name and options_of(a) == options_of(b)


def resolve(former: Part, mixer: Part, init: str) -> Part:
    """The mixer with the options that its start needs and that were not given.

    A warm start takes them from the former mixer (the head size, the biases, for the same mixer all), a start as
    pooling from the pooling that is replaced.

    Raises:
        UserError: there is no rule for this start.
    """
    if check_init(init) == "random" or same_mixer(former, mixer):
        return mixer
    if mixer.name == "pooling" and former.name != "pooling":  # it has no weights to start from
        return mixer
    if init == "pooling" and mixer.name == "pooling":
        return mixer
    if init == "pooling":
        if mixer.name not in POOLING_STARTS:
            able = f"a mixer that can act as pooling ({', '.join(sorted(POOLING_STARTS))})"
            raise expected("init='pooling'", able, mixer.name, "init='random'")
        target, inherits = target_of(former), POOLING_STARTS[mixer.name].inherits
        wanted: dict[str, Any] = {"kernel_size": target.kernel_size, "subtract_input": target.subtract_input}
    elif former.name == mixer.name:
        wanted = options_of(former)
        inherits = tuple(wanted)
    elif (former.name, mixer.name) in WARM_STARTS:
        wanted, inherits = options_of(former), WARM_STARTS[former.name, mixer.name].inherits
    else:
        raise no_warm_start(former.name, mixer.name)
    known = options_of(mixer)
    missing = [k for k in inherits if k in wanted and k in known and k not in mixer.options]
    return mixer.with_options(**{k: wanted[k] for k in missing if known[k] != wanted[k]})


def no_warm_start(former: str, mixer: str) -> UserError:
    """The error of a pair without a rule."""
    able = sorted(a for a, b in WARM_STARTS if b == mixer)
    want = f"a mixer whose weights mean something in {mixer} ({', '.join([*able, mixer])})"
    hint = "init='pooling'" if former == "pooling" and mixer in POOLING_STARTS else "init='random'"
    return expected(f"init='warm' for {mixer}", want, former, hint)


def target_of(former: Part) -> Target:
    """The pooling that a replaced mixer is, or pooling as it is by default."""
    if former.name != "pooling":
        return Target()
    options = options_of(former)
    return Target(options["kernel_size"], options["subtract_input"], replaces=True)


def warm_entries(former: Part, old: Mixer, mixer: Part, new: Mixer) -> Entries:
    """Entries of the new mixer that the former one's weights fill."""
    if former.name == mixer.name:
        return same_names(old, new)
    if (former.name, mixer.name) in WARM_STARTS:
        return WARM_STARTS[former.name, mixer.name].convert(old, new)
    if not new.state_dict():
        return {}
    raise no_warm_start(former.name, mixer.name)


def pooling_entries(former: Part, mixer: Part, new: Mixer) -> tuple[dict[str, Tensor], str]:
    """Entries with which the new mixer acts as pooling, and what it then computes."""
    if mixer.name == "pooling":
        return {}, "pooling itself"
    return POOLING_STARTS[mixer.name].start(new, target_of(former))


def differences(former: Part, old: Mixer, mixer: Part, new: Mixer) -> list[str]:
    """What two mixers compute differently whatever their weights, in words."""
    before, after = options_of(former), options_of(mixer)
    said = [f"{k} {after[k]} instead of {before[k]}" for k in after if k in before and after[k] != before[k]]
    defaults = options_of(Part(mixer.name))
    said += [f"{k} {v}" for k, v in after.items() if k not in (*before, "kernel_size") and v != defaults.get(k)]
    if old.includes.reach != new.includes.reach:
        window = f" of {new.kernel_size}" if new.includes.reach == "window" and hasattr(new, "kernel_size") else ""
        said.append(f"reach: {new.includes.reach}{window} instead of {old.includes.reach}")
    if before.get("subtract_input") and "subtract_input" not in after:
        said.append("does not subtract its input any more")
    return said


def same_names(old: nn.Module, new: nn.Module) -> Entries:
    """Entries of the same name: those of the same shape as they are, kernels of convolutions fitted to the new size."""
    given, convs = old.state_dict(), kernels(new)
    made: Entries = {}
    for key, value in new.state_dict().items():
        if key not in given:
            continue
        if key in convs and key in kernels(old):
            same_dilation(kernels(old)[key], convs[key])
            if given[key].shape[:2] == value.shape[:2]:
                made[key] = Made(*fitted(given[key], tuple(value.shape[2:])))
        elif given[key].shape == value.shape:
            made[key] = Made(given[key])
    return made
