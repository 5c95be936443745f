"""The page of a monitor: norms with their equilibrium, angles, decay applied over intended."""

import numpy as np
import polars as pl

from weightdecay.monitor.record import Monitored
from weightdecay.reports.page import chinese
from weightdecay.reports.page.figures import LOSS, Figure, Line, Page

_MOST = 7  # parameters: the largest


def page(result: Monitored) -> Page:
    """The page."""
    table = result.table()
    sizes = table.group_by("parameter", maintain_order=True).agg(pl.col("numel").first())
    names = sizes.sort("numel", descending=True, maintain_order=True)["parameter"].head(_MOST).to_list()
    steps = table["step"].unique().sort()

    def of(name: str, column: pl.Expr) -> np.ndarray:
        """A column of one parameter at every look."""
        rows = table.filter(parameter=name).select("step", column.cast(pl.Float64).alias("y"))
        frame = pl.DataFrame({"step": steps}).join(rows, on="step", how="left").sort("step")
        return frame["y"].fill_null(float("nan")).to_numpy()

    norms = [Line(name, of(name, pl.col("norm")), i) for i, name in enumerate(names)]
    norms += [
        Line((f"{name}, equilibrium", f"{name}，平衡"), of(name, pl.col("equilibrium_norm")), i, dashed=True)
        for i, name in enumerate(names)
    ]
    angles = [Line(name, of(name, pl.col("angle")), i) for i, name in enumerate(names)]
    ratio = pl.col("applied") / pl.col("intended")
    ratios = [Line(name, of(name, ratio), i) for i, name in enumerate(names)]
    step = ("step", "步")
    x = steps.to_numpy()
    figures = [
        Figure(("Norm, and its equilibrium", "范数与平衡范数"), x, norms, step, ("‖w‖", "‖w‖"), log_y=True),
        Figure(("Angle of a step", "每步的角度"), x, angles, step, ("rad", "弧度"), log_y=True),
        Figure(
            ("Decay applied over intended", "实际衰减除以应有衰减"),
            x,
            ratios,
            step,
            ("ratio", "比值"),
            at_least=(0, 1.2),
        ),
        *_losses(table, x),
    ]
    notes = []
    if len(names) < sizes.height:
        notes.append(
            (
                f"The {len(names)} largest of {sizes.height} parameters.",
                f"{sizes.height} 个参数中最大的 {len(names)} 个。",
            )
        )
    title = (
        f"Monitor: {result.optimizer}, {result.steps} steps",
        f"监视器：{result.optimizer}，{result.steps} 步",
    )
    lines = result.lines, chinese.monitor_lines(result)
    doubts = result.doubts, chinese.monitor_doubts(result)
    return Page(title, lines, doubts, figures=figures, notes=notes)


def _losses(table: pl.DataFrame, x: np.ndarray) -> list[Figure]:
    """What the training told, if it told something."""
    looks = table.group_by("step").agg(pl.col("train_loss", "test_loss").first()).sort("step")
    names = {"train_loss": ("train", "训练"), "test_loss": ("test", "测试")}
    lines = [
        Line(label, looks[name].cast(pl.Float64).fill_null(float("nan")).to_numpy(), colour)
        for colour, (name, label) in zip(("train", "test"), names.items(), strict=True)
        if looks[name].is_not_null().any()
    ]
    return [Figure(("Losses", "损失"), x, lines, ("step", "步"), LOSS, log_y=True)] if lines else []
