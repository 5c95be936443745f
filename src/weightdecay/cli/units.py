"""`weightdecay transfer`, `convert` and `half-life`: strengths, in the units and set-ups people have."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from weightdecay.arguments import choice, count, grid, no_number
from weightdecay.cli.folders import noted
from weightdecay.cli.options import SETUP, ConvertOptions, HalfLifeOptions, TransferOptions, command, given
from weightdecay.errors import NOTHING, InputError
from weightdecay.text import Text

if TYPE_CHECKING:
    from weightdecay.schedule.lifetimes import Lifetime
    from weightdecay.schedule.setups import Setup
    from weightdecay.schedule.setups import Transfer as Transferred

# The words of --old and --new, and what the set-up calls them.
_SAME = ("lr", "steps", "schedule", "examples", "width", "warmup", "floor", "decay", "interval")
_WORDS = {"batch": "batch_size", **{word: word for word in _SAME}}
_WHOLE = ("batch", "steps", "examples", "width")
_LAWS = ("lr", "lr_relative", "lr_squared", "constant")


@command
def transfer(options: TransferOptions) -> None:
    """Carry a weight decay over to another batch size, step size, schedule or length.

    weightdecay transfer 0.1 --old batch=256,lr=3e-4,steps=10000
    --new batch=1024,lr=6e-4,steps=5000,schedule=cosine

    Schedules: constant, linear, cosine, wsd. It is exact for decoupled decay, as in AdamW.
    """
    from weightdecay.schedule import transfer as transferred

    with _spelled(weight_decay="WEIGHT_DECAY"):
        strength = _number(options.weight_decay, "weight_decay")
        setups = _setup(options.old, "--old"), _setup(options.new, "--new")
        choice(options.keep, "keep", ("run", "epoch"))
        choice(options.law, "law", _LAWS)
        if options.width_rule is not None:
            choice(options.width_rule, "width_rule", ("independent", "sqrt"))
        names = {name: getattr(options, name) for name in ("keep", "law", "width_rule")}
        transfer = transferred(strength, *setups, **names)
    _print(transfer, options.as_json)


@command
def convert(options: ConvertOptions) -> None:
    """Say a strength in another library's or textbook's convention.

    weightdecay convert 3 --from textbook --to sklearn.Ridge --n 20
    """
    from weightdecay.units.conventions import conventions, remarks
    from weightdecay.units.conventions import convert as converted

    value, source, target = options.value, options.source, options.target
    context = given(options, "value", "source", "target", "sd_x", "show_list", "as_json")
    if options.show_list:
        rows = conventions()
        print(json.dumps({"conventions": [row.to_dict() for row in rows]}) if options.as_json else rows)
        return
    with _spelled(source="--from", target="--to", value="VALUE", convert="--from --to"):
        if value is None or source is None or target is None:
            missing = "VALUE" if value is None else "--from" if source is None else "--to"
            what = Text("nothing to convert", "没有可换算的内容")
            remedy = Text("give it, or see the names by --list", "请给出它，或用 --list 查看各名称")
            raise InputError(what, missing, NOTHING, remedy)
        numbers = grid(value, "value")
        if options.sd_x is not None:
            context["sd_x"] = list(grid(options.sd_x, "sd_x"))
        result = converted(numbers[0] if len(numbers) == 1 else numbers, source, target, **context)
        notes = remarks(source, target)
    if options.as_json:
        plain = result if isinstance(result, float | int) else result.tolist()  # one for each feature
        print(_json({"value": plain, "from": source, "to": target, "context": context, "notes": notes}))
        return
    numbers = (result,) if isinstance(result, float | int) else result
    print(*(f"{number:.12g}" for number in numbers), sep=",")
    for note in notes:
        print(noted(note))


@command
def half_life(options: HalfLifeOptions) -> None:
    """Say how long a weight without gradient lives under weight decay, and warn about the strength.

    weightdecay half-life --lr 3e-4 --weight-decay .1 --schedule cosine --steps 10000 --dtype bfloat16
    """
    from weightdecay.schedule.lifetimes import lifetime

    with _spelled(half_life_steps="--half-life", halves="--half-lives"):
        choice(options.law, "law", _LAWS)
        values = given(options, "half_life", "interval", "as_json")
        life = lifetime(half_life_steps=options.half_life, interval=_interval(options.interval), **values)
    _print(life, options.as_json)


def _print(result: "Lifetime | Transferred", as_json: bool) -> None:
    print(_json(asdict(result)) if as_json else result)


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
    from weightdecay.schedule import Setup

    values: dict[str, Any] = {}
    for part in text.split(","):
        word, _, value = (piece.strip() for piece in part.partition("="))
        if word not in _WORDS or not value or _WORDS[word] in values:
            what = Text("not a setting, or one that is there twice", "不是设置，或写了两次")
            remedy = Text(f"write {SETUP}", f"写法：{SETUP.zh}")
            raise InputError(what, option, repr(part.strip()), remedy)
        where = f"{option} {word}"
        if word == "interval":
            values[word] = _interval(value)
            continue
        number = value if word == "schedule" else _number(value, where)
        values[_WORDS[word]] = count(number, where) if word in _WHOLE else number
    try:
        for word in ("batch", "lr", "steps"):
            if _WORDS[word] not in values:
                what, remedy = (
                    Text("a set-up is not whole", "设置不完整"),
                    Text(f"add {word}=", f"请加上 {word}="),
                )
                raise InputError(what, word, NOTHING, remedy)
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
        raise no_number(
            repr(text), where, Text("write it as 0.1 or 3e-4", "写成 0.1 或 3e-4 的形式")
        ) from None


def _interval(text: str | None) -> Any:
    """How often a schedule goes on: step, epoch or a number of steps."""
    return text if text is None or not text[:1].isdigit() else _number(text, "interval")
