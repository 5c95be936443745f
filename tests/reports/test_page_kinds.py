"""The pages of every kind of result, in a real browser: what they show, how they print, who can use them."""

import base64
import inspect
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import typer.testing
from tests.browser import browsing, opened

import weightdecay as wd
from weightdecay.auditing.checks import CODES
from weightdecay.cli import app
from weightdecay.sweeps.record import sweep_record
from weightdecay.sweeps.task import Copy, Look, Trained

STRENGTHS, SEEDS, RATES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0), (0, 1, 2), (0.001, 0.01)


def trainings(strengths=STRENGTHS, seeds=SEEDS, rates=RATES, looks=5):
    """Of a made-up network that is best at λ = .3 and lr = .01."""
    rows = []
    for lr in rates:
        for lam in strengths:
            for seed in seeds:
                loss = (
                    1
                    + (math.log10(lam + 1e-3) - math.log10(0.3)) ** 2
                    + 0.01 * seed
                    + 0.05 * (lr != rates[-1])
                )
                looked = range(1, looks + 1)
                measured = {"accuracy": 1 / loss}
                seen = tuple(Look(e, loss / 2 + 1 / e, loss + 1 / e, measured) for e in looked)
                copy = Copy("Decoupled", lr if len(rates) > 1 else None, lam, "weight_decay", seed)
                end = seen[-1]
                rows.append(Trained(copy, lam, end.train_loss, end.test_loss, end.metrics, seen, None))
    return rows


@pytest.fixture(scope="module")
def sweep():
    factors = {("Decoupled", lr): lr for lr in RATES}
    return sweep_record(trainings(), steps_per_epoch=20, factors=factors, method="by hand")


@pytest.fixture(scope="module")
def data():
    torch.manual_seed(0)
    X = torch.randn(80, 20, dtype=torch.float64)
    return X, 2 * X[:, 0] - X[:, 3] + torch.randn(80, dtype=torch.float64)


@pytest.fixture(scope="module")
def path(data):
    return wd.ridge_path(*data, [0.001, 0.01, 0.1, 1.0, 10.0], cv=5)


@pytest.fixture(scope="module")
def classes(data):
    labels = [("ant", "bee", "cat")[int(score > -1) + int(score > 1)] for score in data[1]]
    return wd.logistic_path(data[0], labels, [0.001, 0.01, 0.1, 1.0], cv=5)


@pytest.fixture(scope="module")
def audit():
    model = torch.nn.Sequential()
    model.add_module("body", torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8)))
    model.add_module("head", torch.nn.Linear(8, 2))
    body = {"params": model.get_submodule("body").parameters(), "weight_decay": 0.1}
    head = {"params": model.get_submodule("head").parameters(), "weight_decay": 0.0}
    return wd.audit(model, torch.optim.AdamW([body, head], lr=0.01), steps=1000)


@pytest.fixture(scope="module")
def monitored():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    with wd.Monitor(model, optimizer, every=4) as monitor:
        for _ in range(12):
            loss = model(torch.ones(2, 4)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return monitor.result()


@pytest.fixture(scope="module")
def run():
    return wd.run_experiment(
        wd.Experiment(lambdas=(0.0, 3.0), versions=("scratch",), curve=(1.0,), curve_seeds=1)
    )


@pytest.fixture(scope="module")
def written(run, path, data, classes, sweep, audit, monitored, tmp_path_factory):
    """A page of every kind."""
    folder = tmp_path_factory.mktemp("pages")
    results = {"textbook": run, "ridge": path, "sweep": sweep, "audit": audit, "monitor": monitored}
    results["logistic"] = classes
    return {
        kind: wd.report(result, folder / f"{kind}.html", y=data[1] if kind == "ridge" else None)
        for kind, result in results.items()
    }


@browsing
@pytest.mark.parametrize("kind", ["textbook", "ridge", "logistic", "sweep", "audit", "monitor"])
def test_nothing_serious_bars_anybody(browser, written, kind):
    from axe_playwright_python.sync_playwright import Axe

    for fragment, scheme in (("", "light"), ("#lang=zh", "dark")):
        with opened(browser, written[kind], fragment, color_scheme=scheme) as page:
            found = Axe().run(page).response
            assert found["passes"], "axe looked at nothing"
            serious = [
                (one["id"], [node["html"][:120] for node in one["nodes"][:3]])
                for one in found["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert serious == [], (kind, fragment)


@browsing
@pytest.mark.parametrize("kind", ["ridge", "logistic", "sweep", "audit", "monitor"])
def test_chinese_and_a_narrow_screen(browser, written, kind):
    with opened(browser, written[kind], "#lang=zh", viewport={"width": 390, "height": 800}) as page:
        assert re.search("[一-鿿]", page.locator("h1").inner_text())
        for line in page.locator("#lines p").all_inner_texts():
            assert re.search("[一-鿿]", line), line
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


@browsing
def test_the_textbook_prints_on_two_pages(browser, written):
    with opened(browser, written["textbook"]) as page:
        pdf = page.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) == 2


@browsing
def test_the_page_of_classes_shows_what_the_path_holds(browser, written, classes):
    with opened(browser, written["logistic"]) as page:
        captions = page.locator("figcaption").all_inner_texts()
        shown = page.evaluate("globalThis.page.figures.map((f) => [f.x, f.lines.map((line) => line.y)])")
        counts = page.locator("table").first.locator("tbody td").all_inner_texts()
        said = page.locator("#lines").inner_text()
    confusion = classes.confusion().drop("class").to_numpy()
    assert [int(cell) for cell in counts if cell.isdecimal()] == confusion.ravel().tolist()
    assert [name for name in captions if name.startswith("Coefficients")] == [
        f"Coefficients times the columns' sd: {name}" for name in ("ant", "bee", "cat")
    ]
    figures = dict(zip(captions, shown, strict=True))
    np.testing.assert_array_equal(figures["Score against λ"][1][0], classes.scores)
    errors, always = figures["Rows predicted wrong, held out"][1]
    np.testing.assert_array_equal(errors, classes.curves["error"])
    np.testing.assert_array_equal(always, [classes.share_wrong] * 4)
    reliability = classes.calibration()
    x, (_, observed) = figures["Reliability of the predicted class's probability"]
    np.testing.assert_array_equal(x, reliability.table["predicted"])
    np.testing.assert_array_equal(observed, reliability.table["observed"])
    assert f"off by {100 * reliability.error:.2g} % on average" in said


@browsing
def test_rows_held_out_are_beside_what_was_measured(browser, written, path, data):
    measured, predicted = data[1].numpy(), path.out_of_fold().numpy()
    with opened(browser, written["ridge"]) as page:
        captions = page.locator("figcaption").all_inner_texts()
        shown = page.evaluate("globalThis.page.figures.map((f) => [f.x, f.lines.map((line) => line.y)])")
        assert "held out: off by" in page.locator("#lines").inner_text()
    at = captions.index("Predicted against measured")
    order = np.argsort(measured)
    np.testing.assert_array_equal(shown[at][0], measured[order])
    np.testing.assert_array_equal(shown[at][1][0], predicted[order])
    left = captions.index("Residuals of rows held out")
    np.testing.assert_allclose(
        np.add(shown[left][0], shown[left][1][0]), measured[np.argsort(predicted)], rtol=1e-12
    )


@browsing
def test_names_of_columns_appear_when_pointed_at(browser, written):
    with opened(browser, written["ridge"]) as page:
        at = page.locator("figcaption").all_inner_texts().index("Coefficients times the columns' sd")
        box = page.locator(f"#figure-{at} .u-over").bounding_box()
        chart, figure = f"globalThis.page.charts['figure-{at}']", f"globalThis.page.figures[{at}]"
        top = page.evaluate(f"{chart}.valToPos({figure}.lines[0].y[1], 'y')")
        left = page.evaluate(f"{chart}.valToPos({figure}.x[1], 'x')")
        page.mouse.move(box["x"] + left, box["y"] + top)
        assert page.locator("figure").nth(at).locator(".tip").inner_text() == "column 1"


@browsing
@pytest.mark.parametrize("lambdas", [(0.0, 0.05, 0.1), (0.001, 0.01, 0.1, 1.0)])
def test_the_top_axis_stands_at_known_values(browser, data, tmp_path, lambdas):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wd.WeightDecayWarning)  # that the grid is small is not the point
        path = wd.ridge_path(*data, lambdas, cv=5)
    with opened(browser, wd.report(path, tmp_path / "page.html")) as page:
        axis = "globalThis.page.charts['figure-0'].axes[2]"
        assert page.evaluate(f"{axis}._splits") == list(lambdas)
        assert page.evaluate(f"{axis}._values.map(Number)") == [
            float(f"{one:.2g}") for one in path.dof.tolist()
        ]


@browsing
def test_learning_curves_of_any_selection(browser, written, sweep):
    series = "globalThis.page.charts['figure-1'].series.length - 1"
    with opened(browser, written["sweep"]) as page:
        first = page.evaluate(series)
        assert 2 <= first < len(STRENGTHS)
        choices = page.locator("figure").nth(1)
        choices.get_by_role("button", name="all").click()
        assert page.evaluate(series) == len(STRENGTHS)
        choices.get_by_label("0.03", exact=True).uncheck()
        assert page.evaluate(series) == len(STRENGTHS) - 1
        choices.get_by_role("button", name="none").click()
        choices.get_by_label("0.3, best").check()
        drawn = page.evaluate("globalThis.page.charts['figure-1'].data[1]")
        curves = sweep.curves().filter(pl.col("lr") == 0.01, pl.col("strength") == 0.3)
        means = curves.group_by("epoch").agg(pl.col("test_loss").mean()).sort("epoch")["test_loss"]
        np.testing.assert_allclose(drawn, means, rtol=1e-12)
        choices.get_by_label("measure").select_option(label="test accuracy, Decoupled, lr 0.001")
        assert page.evaluate(series) >= 2


@browsing
def test_strengths_half_lives_and_all_settings(browser, written, sweep):
    lives = sweep.half_lives()
    assert lives[0] == math.inf
    np.testing.assert_allclose(lives[4], math.log(2) / -math.log1p(-0.01 * 0.3) / 20)
    with opened(browser, written["sweep"]) as page:
        top = page.evaluate("globalThis.page.figures[0].top.values")
        np.testing.assert_allclose(top, lives[1:])
        bars = page.evaluate("globalThis.page.figures[0].lines.filter((one) => one.bars)[0].band")
        np.testing.assert_allclose(bars, sweep.errors[1:])
        grid = page.locator("#tables table").first
        assert grid.locator("tbody tr").count() == len(RATES)
        cells = grid.locator("tbody tr").nth(1).locator("td").all_inner_texts()
        assert cells[0] == "Decoupled, lr 0.01"
        assert [float(one) for one in cells[1:]] == pytest.approx(sweep.scores.tolist(), rel=1e-3)
        colour = r"(cell) => parseFloat((cell.style.background.match(/([\d.]+)%/) ?? [0, 0])[1])"
        darkest = max(grid.locator("tbody td").all(), key=lambda cell: cell.evaluate(colour))
        assert float(darkest.inner_text()) == pytest.approx(float(sweep.scores.min()), rel=1e-3)


@browsing
def test_the_tree_has_every_parameter(browser, written, audit):
    with opened(browser, written["audit"], "#lang=zh") as page:
        leaves = page.locator("#tree li:not(:has(li))")
        assert leaves.count() == len(audit.parameters)
        weight = page.locator("#tree li:not(:has(li))").first.inner_text()
        assert weight.startswith("weight")
        assert "8 × 8" in weight
        background = "(chip) => getComputedStyle(chip).backgroundColor"
        chips = [chip.evaluate(background) for chip in leaves.locator(".chip").all()]
        assert len(set(chips)) == len(
            {one.weight_decay for one in audit.parameters if one.decays} | {0.0}
        ) - all(one.decays for one in audit.parameters)
        row = page.locator("#tables tbody tr").first.inner_text()
        assert CODES[audit.findings[0].code].title.zh in row


def test_the_largest_sweep_is_a_small_file(tmp_path):
    strengths = (0.0, *np.logspace(-4, 2, 119).tolist())
    rows = trainings(strengths, tuple(range(20)), (0.001, 0.003, 0.01, 0.03), looks=1)
    looks = tuple(Look(e, 1 / e, 2 / e, {"accuracy": 0.5}) for e in range(1, 101))
    rows = [replace(row, looks=looks) for row in rows]
    page = wd.report(sweep_record(rows), tmp_path / "page.html")
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) <= 3_000_000
    for said in ("The grid has", "The table has the best 200 of 480 rows", "can be chosen"):
        assert said in text


def test_half_lives_of_a_real_sweep(tmp_path):
    found = wd.sweep(
        lambda: torch.nn.Linear(4, 1),
        (torch.randn(32, 4), torch.randn(32, 1)),
        (torch.randn(16, 4), torch.randn(16, 1)),
        loss=torch.nn.functional.mse_loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.02, weight_decay=0),
        strengths=[0.5],
        seeds=1,
        epochs=2,
        batch_size=8,
        widen=0,
    )
    assert found.half_lives() == pytest.approx((math.inf, math.log(2) / -math.log1p(-0.02 * 0.5) / 4))
    found.save(tmp_path)
    assert wd.load(tmp_path).half_lives() == found.half_lives()


def test_titles_of_findings_are_those_of_their_pages():
    folder = Path(__file__).parents[2] / "docs" / "audit"
    for code, check in CODES.items():
        pages = [(folder / f"{code}{language}.md").read_text(encoding="utf-8") for language in ("", ".zh")]
        english, chinese = (page.splitlines()[0] for page in pages)
        assert english == f"# {code}: {check.title}"
        assert chinese == f"# {code}：{check.title.zh}"


def in_both_languages(texts):
    for text in texts:
        assert re.search("[一-鿿]", text.zh), text
        assert sorted(re.findall(r"\d+", text)) == sorted(re.findall(r"\d+", text.zh)), text


def test_notes_and_doubts_say_the_same_in_both_languages(path, sweep, run, monitored, data, tmp_path):
    X, y = data
    with pytest.warns(wd.WeightDecayWarning):
        flat = wd.ridge_path(X[:, 5:6], y, [1e-9, 1e-8], cv=5)
    with pytest.warns(wd.WeightDecayWarning):
        edge = wd.ridge_path(X, y, [0.1, 10.0], cv=5)
    alone = sweep_record(trainings(seeds=(0,), rates=(0.01,)))
    high = sweep_record(trainings(strengths=(0.0, 0.01, 0.03)))
    assert all(result.doubts for result in (edge, flat, alone, high))
    loaded = [wd.load(result.save(tmp_path / str(k))[0].parent) for k, result in enumerate((flat, run))]
    for result in (path, edge, flat, sweep, alone, high, run, *loaded):
        in_both_languages(result.notes)
    in_both_languages([*monitored.lines, *monitored.doubts])


def told(*arguments):
    done = typer.testing.CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert done.exit_code != 0
    return str(done.exception)


@pytest.fixture
def folder(run, tmp_path):
    run.save(tmp_path / "run")
    return tmp_path / "run"


def test_a_run_that_was_tampered_with_is_refused(folder):
    results = (folder / "results.parquet").read_bytes()
    for name in ("results.parquet", "slider.parquet", "lambda.parquet"):
        file = folder / name
        content = file.read_bytes()
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert name in told(folder)
        file.unlink()
        assert f"{name}" in told(folder)
        file.write_bytes(content)
    other = pl.read_parquet(folder / "results.parquet").with_columns(pl.col("test_loss") / 2)
    other.write_parquet(folder / "results.parquet")
    assert "not the file that run.json was written with" in told(folder)
    (folder / "results.parquet").write_bytes(results)
    record = folder / "run.json"
    text = record.read_text(encoding="utf-8")
    for broken, said in (
        (text[: len(text) // 2], "not JSON"),
        (text.replace('"version": 1', '"version": 2'), "another version"),
        (text.replace('"complete"', '"complet"'), "complete"),
        (text.replace('"kind": "textbook"', '"kind": "novel"'), "not a textbook run"),
        ("[]", "not a textbook run"),
    ):
        record.write_text(broken, encoding="utf-8")
        message = told(folder)
        assert said in message
        assert "run.json" in message
    record.write_text(text, encoding="utf-8")
    assert not (folder / "report.html").exists()
    assert typer.testing.CliRunner().invoke(app, ["report", str(folder)]).exit_code == 0


def test_rows_of_another_fit_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    table = pl.DataFrame({name: rng.normal(size=40) for name in ("a", "b", "y")})
    table.write_csv(tmp_path / "t.csv")
    out = tmp_path / "fit"
    done = typer.testing.CliRunner().invoke(
        app, ["fit", str(tmp_path / "t.csv"), "--target", "y", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    page = (out / "report.html").read_text(encoding="utf-8")
    assert typer.testing.CliRunner().invoke(app, ["report", str(out)]).exit_code == 0
    again = (out / "report.html").read_text(encoding="utf-8")
    numbers = r'"[A-Za-z0-9+/=]{40,}"'
    assert re.sub(numbers, "", again) == re.sub(numbers, "", page)  # from the files as from the fit
    for one, other in zip(re.findall(numbers, again), re.findall(numbers, page), strict=True):
        values = [np.frombuffer(base64.b64decode(text[1:-1])) for text in (one, other)]
        np.testing.assert_allclose(*values, rtol=1e-9, atol=1e-12)  # solved anew, to rounding
    rows = out / "out_of_fold.parquet"
    pl.read_parquet(rows).head(30).write_parquet(rows)
    assert "not the rows of path.json" in told(out)
    rows.write_bytes(b"PAR1")
    assert "out_of_fold.parquet" in told(out)


def test_targets_that_are_none(folder, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in told(folder, "--out", tmp_path / "file" / "page.html")
    assert "cannot be written" in told(folder, "--out", tmp_path)


def test_y_belongs_to_a_path(path, run, tmp_path):
    with pytest.raises(wd.InputError, match="y belongs to a ridge path"):
        wd.report(run, tmp_path / "p.html", y=[1.0])
    with pytest.raises(wd.InputError, match="not the targets of the fit"):
        wd.report(path, tmp_path / "p.html", y=[1.0])
    with pytest.raises(wd.InputError, match="not numbers"):
        wd.report(path, tmp_path / "p.html", y=["a", "b"])
    assert not (tmp_path / "p.html").exists()


@pytest.mark.parametrize("wrong", [3, None, b"page.html"])
def test_a_path_that_is_none_is_named(audit, wrong):
    with pytest.raises(wd.InputError, match=r"^not a path: path = .*; give the name of a file to write"):
        inspect.unwrap(wd.report)(audit, wrong)  # without the type checks of the tests


def test_one_table_has_the_colours_of_figures_pages_and_terminal(audit, tmp_path):
    from rich.style import Style

    from weightdecay.reports.style import COLOURS, CYCLE, ROLES

    text = wd.report(audit, tmp_path / "page.html").read_text(encoding="utf-8")
    for role, name in [*ROLES.items(), *((name, name) for name in COLOURS)]:
        assert f"--{role}: {COLOURS[name].light};" in text
        assert f"--{role}: {COLOURS[name].dark};" in text
        Style.parse(COLOURS[name].terminal)
    assert len(set(CYCLE)) == len(COLOURS)


def test_chinese_labels_are_drawn_where_a_font_is_here():
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from weightdecay.reports.style import families, style

    if len(families()) == 1:
        pytest.skip("no font with Chinese letters here")
    with mpl.rc_context(style()):
        figure = Figure()
        figure.subplots().set_title("权重衰减 λ ½")
        figure.canvas.draw()  # a missing glyph is a warning, which is an error
