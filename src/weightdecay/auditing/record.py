"""What an audit returns: frozen records that can be saved and printed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weightdecay.auditing.html import page
from weightdecay.auditing.show import shown
from weightdecay.files import write_json
from weightdecay.findings import Finding, check

if TYPE_CHECKING:
    import polars as pl

FORMAT = "weightdecay audit, version 1"


@dataclass(frozen=True)
class Parameter:
    """What happens to one parameter.

    Args:
        name: as `model.named_parameters()` has it, without what wrappers add.
        aliases: its other names, where weights are tied.
        module: class of the module that holds it.
        role: what it is for: one of `weightdecay.groups.roles.ROLES`.
        shape: of the whole tensor, where it is sharded.
        dtype: what it is stored in.
        numel: number of elements.
        optimizer: the class of the optimizer that has it, with its position where there are several; None
            where none has it.
        group: the position of its group in that optimizer.
        weight_decay: λ as the optimizer or the rule calls it, scale included; 0 where there is none.
        rule: by whose hand it decays, in words; empty where it does not.
        form: how: "decoupled", "coupled", "sign-normalised" and so on; "none" where it does not decay.
        half_life: in steps, at the peak step size; None where it does not decay or has no half-life.
        share_of_run: half-life over the steps of the run; None without steps.
        frozen: whether it does not require a gradient.
        why: why it has this role and this strength.
    """

    name: str
    aliases: tuple[str, ...]
    module: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    numel: int
    optimizer: str | None
    group: int | None
    weight_decay: float
    rule: str
    form: str
    half_life: float | None
    share_of_run: float | None
    frozen: bool
    why: str

    @property
    def decays(self) -> bool:
        """Whether anything is removed: a strength that its optimizer does not apply removes nothing."""
        return self.weight_decay > 0 and self.form != "none"


@dataclass(frozen=True)
class GroupTotal:
    """One parameter group of an optimizer, summed up.

    Args:
        optimizer: as in `Parameter`.
        group: its position; None for the parameters that no optimizer has.
        label: the group's name, if it has one.
        lr: the step size now.
        parameters: how many it has.
        elements: how many numbers these have.
        decaying: how many of these decay.
        weight_decay: the strengths that occur, the largest first.
    """

    optimizer: str | None
    group: int | None
    label: str
    lr: float | None
    parameters: int
    elements: int
    decaying: int
    weight_decay: tuple[float, ...]


@dataclass(frozen=True)
class Ignored:
    """A finding that was not to be told, and the reason given."""

    finding: Finding
    reason: str


@dataclass(frozen=True)
class Audit:
    """What decays in a model, how strongly and why, and what looks wrong.

    Args:
        parameters: one record each, in the model's order.
        findings: errors first.
        ignored: findings that were ignored.
        groups: each parameter group summed up.
        settings: what the audit was told: steps, schedule, groups.
        versions: of the package, of torch.
    """

    parameters: tuple[Parameter, ...] = field(repr=False)
    findings: tuple[Finding, ...]
    ignored: tuple[Ignored, ...] = ()
    groups: tuple[GroupTotal, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    versions: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings of severity "error"."""
        return tuple(one for one in self.findings if one.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings of severity "warning"."""
        return tuple(one for one in self.findings if one.severity == "warning")

    @property
    def elements(self) -> int:
        """How many numbers the model has, tied weights counted once."""
        return sum(one.numel for one in self.parameters)

    @property
    def decaying(self) -> int:
        """How many of these decay."""
        return sum(one.numel for one in self.parameters if one.decays)

    def check(self) -> None:
        """Raise if there is an error.

        Raises:
            FindingsError: with all findings of severity "error".
        """
        check(self.findings)

    def table(self) -> "pl.DataFrame":
        """The parameters as a table, a row each."""
        import polars as pl

        rows = [asdict(one) for one in self.parameters]
        for row in rows:
            row["aliases"], row["shape"] = list(row["aliases"]), list(row["shape"])
        return pl.DataFrame(rows, schema=_columns(pl))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `save` writes them."""
        return {"format": FORMAT, **asdict(self)}

    def save(self, path: str | Path) -> Path:
        """Write one JSON file, whole or not at all: a plan to keep in a repository.

        Raises:
            InputError: it cannot be written.
        """
        file = Path(path)
        write_json(file, self.to_dict())
        return file

    def __str__(self) -> str:
        return shown(self)

    def _repr_html_(self) -> str:
        return page(self)


def _columns(pl: Any) -> dict[str, Any]:
    texts = dict.fromkeys(("name", "module", "role", "dtype", "optimizer", "rule", "form", "why"), pl.String)
    numbers = dict.fromkeys(("weight_decay", "half_life", "share_of_run"), pl.Float64)
    kinds = {"aliases": pl.List(pl.String), "shape": pl.List(pl.Int64), "frozen": pl.Boolean}
    whole = {"numel": pl.Int64, "group": pl.Int64}
    every = {**texts, **numbers, **kinds, **whole}
    return {name: every[name] for name in Parameter.__dataclass_fields__}
