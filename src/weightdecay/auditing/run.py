"""`audit`: what decays in a live model and its optimizers, why, and what looks wrong."""

import itertools
import platform
from importlib.metadata import version as version_of
from typing import Any

import torch

from weightdecay.auditing.course import Course, course
from weightdecay.auditing.coverage import coverage
from weightdecay.auditing.decaying import Pulls, check_numbers
from weightdecay.auditing.decisions import decisions
from weightdecay.auditing.doubts import doubts
from weightdecay.auditing.given import checked_model, checked_optimizers, checked_scaler
from weightdecay.auditing.ignore import settled, silences
from weightdecay.auditing.mechanics import mechanics
from weightdecay.auditing.reading import Live, expected, read
from weightdecay.auditing.record import Audit
from weightdecay.auditing.records import group_totals, parameter_records
from weightdecay.auditing.strengths import strengths
from weightdecay.schedule.interval import Interval
from weightdecay.units.numbers import number


def audit(
    model: Any,
    *optimizers: Any,
    schedule: Any = None,
    steps: Any = None,
    steps_per_epoch: float | None = None,
    interval: Interval | None = None,
    groups: Any = "matrices",
    scaler: Any = None,
    ignore: Any = (),
) -> Audit:
    """Say for every parameter whether it decays, how strongly and why, and list what looks wrong.

    Reads live objects and changes nothing in them. Attached rules are found by themselves; wrappers
    (DistributedDataParallel, torch.compile, FSDP2) are seen through; on the meta device values are not read.

    Args:
        model: the nn.Module that is trained; of several an `nn.ModuleList`.
        optimizers: every optimizer that steps, one after another or in lists.
        schedule: the learning rates of the run, as `weightdecay.schedule.lrs` takes them: a torch scheduler
            before its first step (simulated on a copy), a list with one for each optimizer, a name, numbers,
            a function of the step. None: the lr that the groups have.
        steps: how many optimizer steps the run has, a whole number; without it nothing is said about the run.
        steps_per_epoch: optimizer steps of a pass over the data, to compare the timescale with it and for a
            schedule that goes by epochs.
        interval: how often the schedule goes on: "step", "epoch" or a number of optimizer steps. None: for a
            torch scheduler it is found from its own length, or asked for; else "step".
        groups: what should decay, as in `param_groups`; None has no opinion.
        scaler: the GradScaler, if there is one.
        ignore: codes of findings that are not to be told, such as "WD105" or "WD103:head.*" (a pattern of
            names), or a mapping from these to the reason.

    Convention: strengths are what the optimizer or rule calls weight_decay, times the group's scale;
    half-lives are in steps at the peak step size.

    Raises:
        InputError: no model, no optimizer, a lazy layer, a schedule or groups that cannot be used.

    >>> from torch import nn, optim
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3))
    >>> optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    >>> for finding in audit(model, optimizer).findings:
    ...     print(finding.code, finding.parameters)
    WD101 ('1.weight',)
    WD102 ('0.bias', '1.bias')

    Source: the reports in `reference/rules.md`, section 4, each of which was silent.
    """
    quiet = silences(ignore)
    live = read(checked_model(model), checked_optimizers(optimizers))
    check_numbers(live)
    checked_scaler(scaler)
    per_epoch = None if steps_per_epoch is None else number(steps_per_epoch, "steps_per_epoch", above=0)
    run = course(schedule, steps, live.optimizers, interval, per_epoch)
    pulls = Pulls(live)
    drafts = itertools.chain(
        decisions(live, pulls, expected(live, groups)),
        coverage(live, pulls),
        doubts(live, pulls, run),
        strengths(live, pulls, run, per_epoch),
        mechanics(live, pulls, scaler),
        run.drafts,
    )
    findings, ignored = settled(drafts, quiet)
    return Audit(
        parameters=parameter_records(live, pulls, run),
        findings=findings,
        ignored=ignored,
        groups=group_totals(live, pulls),
        settings=_settings(live, run, schedule, per_epoch, groups, scaler),
        versions={
            "weightdecay": version_of("weightdecay"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    )


def _settings(
    live: Live, run: Course, schedule: Any, per_epoch: Any, groups: Any, scaler: Any
) -> dict[str, Any]:
    """What was said, in words."""
    told = schedule if isinstance(schedule, str) or schedule is None else type(schedule).__name__
    return {
        "model": type(live.model).__name__,
        "optimizers": list(live.titles),
        "steps": run.steps,
        "steps_per_epoch": per_epoch,
        "schedule": told,
        "interval": "; ".join(run.told) or None,
        "groups": groups if isinstance(groups, str) or groups is None else repr(groups),
        "scaler": None if scaler is None else type(scaler).__name__,
    }
