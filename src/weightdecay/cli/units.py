"""`weightdecay transfer`, `convert` and `half-life`: strengths, in the units and set-ups people have."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from weightdecay.arguments import choice, grid
from weightdecay.errors import InputError

if TYPE_CHECKING:
    from weightdecay.schedule.lifetimes import Lifetime
    from weightdecay.schedule.setups import Setup, Transfer

_JSON = typer.Option("--json", help="Print one JSON object instead of text.")
_LAW = typer.Option(help="The rule's rate goes with: lr, lr_relative, lr_squared or constant.")
_SETUP = "batch=256,lr=3e-4,steps=10000; and schedule=, warmup=, floor=, decay=, interval=, examples=, width="

_CONTEXT = ("n", "batch_size", "micro_batches", "momentum", "dampening", "lr_max", "sd_y", "noise_sd")
# The words of --old and --new, and what the set-up calls them.
_SAME = ("lr", "steps", "schedule", "examples", "width", "warmup", "floor", "decay", "interval")
_WORDS = {
    "batch": "batch_size",
    **{word: word for word in _SAME},
}
_WHOLE = ("batch", "steps", "examples", "width")


def transfer(
    weight_decay: Annotated[
        str, typer.Argument(metavar="WEIGHT_DECAY", help="The strength in the old set-up.")
    ],
    old: Annotated[str, typer.Option(help=f"The set-up it is good for: {_SETUP}.")],
    new: Annotated[str, typer.Option(help="The set-up it is wanted for, in the same words.")],
    keep: Annotated[str, typer.Option(help="Keep half-lives per run or per epoch.")] = "run",
    law: Annotated[str, _LAW] = "lr",
    width_rule: Annotated[
        str | None,
        typer.Option(help="For another width: independent (2510.19093) or sqrt (2510.15262). [neither]"),
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Carry a weight decay over to another batch size, step size, schedule or length.

    weightdecay transfer 0.1 --old batch=256,lr=3e-4,steps=10000
    --new batch=1024,lr=6e-4,steps=5000,schedule=cosine

    Schedules: constant, linear, cosine, wsd. It is exact for decoupled decay, as in AdamW.
    """
    from weightdecay.schedule import transfer as transferred

    with _spelled(weight_decay="WEIGHT_DECAY"):
        strength = _number(weight_decay, "weight_decay")
        setups = _setup(old, "--old"), _setup(new, "--new")
        choice(keep, "keep", ("run", "epoch"))
        choice(law, "law", ("lr", "lr_relative", "lr_squared", "constant"))
        if width_rule is not None:
            choice(width_rule, "width_rule", ("independent", "sqrt"))
        found = transferred(strength, *setups, keep=keep, law=law, width_rule=width_rule)  # pyright: ignore[reportArgumentType]
    _print(found, as_json)


def convert(
    value: Annotated[
        str | None, typer.Argument(metavar="VALUE", help="The strength: 3, or several by commas.")
    ] = None,
    source: Annotated[str | None, typer.Option("--from", help="The convention it is in.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="The convention that is wanted.")] = None,
    n: Annotated[int | None, typer.Option(help="Training examples.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples in a batch.")] = None,
    micro_batches: Annotated[int | None, typer.Option(help="Micro-batches added up for a step.")] = None,
    momentum: Annotated[float | None, typer.Option(help="SGD's momentum.")] = None,
    dampening: Annotated[float | None, typer.Option(help="SGD's dampening.")] = None,
    lr_max: Annotated[float | None, typer.Option(help="Peak step size.")] = None,
    sd_y: Annotated[float | None, typer.Option(help="Standard deviation of y (1/n).")] = None,
    sd_x: Annotated[
        str | None, typer.Option(help="Standard deviation of each feature (1/n), by commas.")
    ] = None,
    noise_sd: Annotated[float | None, typer.Option(help="Standard deviation of the noise.")] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="List the conventions and what they need.")
    ] = False,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Say a strength in another library's or textbook's convention.

    weightdecay convert 3 --from textbook --to sklearn.Ridge --n 20
    """
    from weightdecay.units.conversion import conventions, remarks
    from weightdecay.units.conversion import convert as converted

    context = {name: number for name, number in locals().items() if number is not None and name in _CONTEXT}
    if show_list:
        rows = conventions()
        print(json.dumps({"conventions": [row.to_dict() for row in rows]}) if as_json else rows)
        return
    with _spelled(source="--from", target="--to", value="VALUE", convert="--from --to"):
        if value is None or source is None or target is None:
            missing = "VALUE" if value is None else "--from" if source is None else "--to"
            raise InputError("nothing to convert", missing, "nothing", "give it, or see the names by --list")
        numbers = grid(value, "value")
        if sd_x is not None:
            context["sd_x"] = list(grid(sd_x, "sd_x"))
        result = converted(numbers[0] if len(numbers) == 1 else numbers, source, target, **context)
        notes = remarks(source, target)
    if as_json:
        plain = result if isinstance(result, float | int) else result.tolist()  # one for each feature
        print(_json({"value": plain, "from": source, "to": target, "context": context, "notes": notes}))
        return
    numbers = (result,) if isinstance(result, float | int) else result
    print(*(f"{number:.12g}" for number in numbers), sep=",")
    for note in notes:
        print(f"note: {note}")


def half_life(
    lr: Annotated[float, typer.Option(help="Step size at the peak of the schedule.")],
    weight_decay: Annotated[float | None, typer.Option(help="The strength.")] = None,
    half_life: Annotated[
        float | None, typer.Option(help="Instead: half-life in steps at the peak; gives the strength.")
    ] = None,
    half_lives: Annotated[
        float | None, typer.Option(help="Instead: half-lives in the whole run; gives the strength.")
    ] = None,
    schedule: Annotated[str, typer.Option(help="constant, linear, cosine or wsd.")] = "constant",
    steps: Annotated[int | None, typer.Option(help="Steps of the run.")] = None,
    warmup: Annotated[float, typer.Option(help="Share of the steps over which lr rises.")] = 0.0,
    floor: Annotated[float, typer.Option(help="Last step size as a share of lr.")] = 0.0,
    decay: Annotated[float, typer.Option(help="With wsd: share of the steps over which lr falls.")] = 0.2,
    law: Annotated[str, _LAW] = "lr",
    coupled: Annotated[bool, typer.Option("--coupled", help="L2 in torch's SGD, not decoupled.")] = False,
    momentum: Annotated[float, typer.Option(help="With --coupled: SGD's momentum.")] = 0.0,
    dampening: Annotated[float, typer.Option(help="With --coupled: SGD's dampening.")] = 0.0,
    nesterov: Annotated[bool, typer.Option("--nesterov", help="With --coupled: Nesterov momentum.")] = False,
    dtype: Annotated[
        str | None, typer.Option(help="What the weights are stored in: float32, bfloat16, float16, float64.")
    ] = None,
    steps_per_epoch: Annotated[
        float | None, typer.Option(help="Optimizer steps of an epoch, to compare and for --interval.")
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(help="The schedule goes on once a step or epoch, or in so many steps. [step]"),
    ] = None,
    as_json: Annotated[bool, _JSON] = False,
) -> None:
    """Say how long a weight without gradient lives under weight decay, and warn about the strength.

    weightdecay half-life --lr 3e-4 --weight-decay .1 --schedule cosine --steps 10000 --dtype bfloat16
    """
    given = {key: value for key, value in locals().items() if key != "as_json"}
    from weightdecay.schedule.lifetimes import lifetime

    with _spelled(half_life_steps="--half-life", halves="--half-lives"):
        choice(law, "law", ("lr", "lr_relative", "lr_squared", "constant"))
        given["interval"] = _interval(interval)
        found = lifetime(given.pop("weight_decay"), half_life_steps=given.pop("half_life"), **given)
    _print(found, as_json)


def _print(found: "Lifetime | Transfer", as_json: bool) -> None:
    print(_json(asdict(found)) if as_json else found)


def _json(values: dict[str, Any]) -> str:
    # JSON has no infinity: a half-life without decay is null.
    finite = {
        key: None if isinstance(value, float) and math.isinf(value) else value
        for key, value in values.items()
    }
    return json.dumps(finite)


@contextlib.contextmanager
def _spelled(**names: str) -> Iterator[None]:
    """Errors about arguments, told with the options' names."""
    try:
        yield
    except InputError as error:
        where = error.where
        if where in names:
            where = names[where]
        elif where.isidentifier() and where.islower():
            where = "--" + where.replace("_", "-")
        raise InputError(error.what, where, error.value, error.remedy) from error


def _setup(text: str, option: str) -> "Setup":
    """A set-up from batch=256,lr=3e-4,steps=10000."""
    from weightdecay.arguments import count
    from weightdecay.schedule import Setup

    values: dict[str, Any] = {}
    for part in text.split(","):
        word, _, value = (piece.strip() for piece in part.partition("="))
        if word not in _WORDS or not value or _WORDS[word] in values:
            raise InputError(
                "not a setting, or one that is there twice", option, repr(part.strip()), f"write {_SETUP}"
            )
        where = f"{option} {word}"
        if word == "interval":
            values[word] = _interval(value)
            continue
        given = value if word == "schedule" else _number(value, where)
        values[_WORDS[word]] = count(given, where) if word in _WHOLE else given
    try:
        for word in ("batch", "lr", "steps"):
            if _WORDS[word] not in values:
                raise InputError("a set-up is not whole", word, "nothing", f"add {word}=")
        setup = Setup(**values)
        setup.lrs()  # here, where it is known which of the two it is about
    except InputError as error:
        name = error.where.removeprefix("Setup.")
        word = next((word for word, field in _WORDS.items() if field == name), name)
        raise InputError(error.what, f"{option} {word}", error.value, error.remedy) from error
    return setup


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError("not a number", where, repr(text), "write it as 0.1 or 3e-4") from None


def _interval(text: str | None) -> Any:
    """How often a schedule goes on: step, epoch or a number of steps."""
    return text if text is None or not text[:1].isdigit() else _number(text, "interval")
