"""The page of a run, in a real browser."""

import base64
import re

import numpy as np
import polars as pl
import pytest
import torch
import typer.testing
from tests.browser import browsing, opened

import weightdecay as wd
from weightdecay.cli import app
from weightdecay.errors import InputError


@pytest.fixture(scope="module")
def run():
    return wd.run_experiment(
        wd.Experiment(lambdas=(0.0, 3.0), versions=("scratch",), curve=(1.0,), curve_seeds=1)
    )


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run.save(folder)
    return wd.report(run, folder / "report.html")


@pytest.fixture
def page(browser, written):
    with opened(browser, written) as page:
        yield page


def drawn(page, name, series):
    """What a figure shows."""
    return page.evaluate(f"[...globalThis.page.charts.{name}.data[{series}]]")


def at(written, lam, version="scratch", init="normal"):
    """The training of one position, from the run's file."""
    table = pl.read_parquet(written.parent / "slider.parquet")
    rows = table.filter(pl.col("version") == version, pl.col("init") == init)
    return rows.row(int((rows["lam"] - lam).abs().arg_min()), named=True)


def shows(page, written, lam, **which):
    expected = at(written, lam, **which)
    assert drawn(page, "curves", 0) == expected["epoch"]
    for series, name in ((1, "train_loss"), (2, "test_loss")):
        np.testing.assert_array_equal(drawn(page, "curves", series), expected[name])
    np.testing.assert_array_equal(drawn(page, "bars", 1), expected["weights"])


def test_every_position_is_a_training(run):
    """Some of them once more, by the program that a reader reads."""
    from weightdecay.textbook.settings import draw
    from weightdecay.textbook.versions import VERSIONS, train_plain

    table = run.slider
    assert table.group_by("version", "init").len()["len"].to_list() == [101] * 6
    for version, init, lam in (
        ("scratch", "normal", 3.0),
        ("concise", "zero", 0.0),
        ("concise-matched", "normal", 100.0),
    ):
        row = table.filter(
            pl.col("version") == version, pl.col("init") == init, (pl.col("lam") - lam).abs() < 1e-9
        ).row(0, named=True)
        settings = wd.Experiment(init=init)
        looks: list = []
        w, _ = train_plain(
            VERSIONS[version],
            draw(settings.data, 0),
            settings,
            lam,
            lambda *look, looks=looks: looks.append(look),
        )
        np.testing.assert_allclose(row["test_loss"], [look[2] for look in looks], rtol=1e-3)  # float32
        np.testing.assert_allclose(row["weights"], w[:50], atol=1e-5)
        assert row["epoch"] == [look[0] for look in looks]


def test_half_lives_are_those_of_the_steps(run):
    row = run.slider.filter(pl.col("version") == "concise-matched", pl.col("lam") == 3.0).row(0, named=True)
    # 2λ and lr/2: the same lr·λ as from scratch, four batches an epoch
    assert row["half_life"] == pytest.approx(np.log(2) / -np.log(1 - 0.003 * 3) / 4)


def test_it_is_one_small_file_with_a_strict_policy(written):
    text = written.read_text(encoding="utf-8")
    assert len(text.encode()) <= 400_000
    assert not re.search(r"(src|href)=|@import|url\(", text.split("<script")[0])
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src &#x27;none&#x27;" in policy
    assert "unsafe" not in policy


@browsing
def test_it_opens_without_a_request_and_shows_the_run(page, written):
    assert page.locator("h1").inner_text() == "Weight decay: the textbook's experiment"
    assert page.locator("#now").inner_text() == "λ = 3"
    shows(page, written, 3.0)


@browsing
def test_the_slider_moves_by_keyboard(page, written):
    page.locator("#lam").focus()
    page.keyboard.press("Home")
    assert page.locator("#now").inner_text() == "λ = 0 (no decay)"
    shows(page, written, 0.0)
    page.keyboard.press("ArrowRight")
    shows(page, written, 1e-3)
    page.keyboard.press("End")
    shows(page, written, 100.0)
    assert "times" in page.locator("#hint").inner_text()


@browsing
def test_the_slider_moves_by_mouse(page, written):
    box = page.locator("#lam").bounding_box()
    page.mouse.click(box["x"] + 0.3 * box["width"], box["y"] + box["height"] / 2)
    place = page.evaluate("globalThis.page.state.place")
    assert 20 < place < 40
    shows(page, written, page.evaluate(f"globalThis.page.sets[0].lam[{place}]"))


@browsing
def test_starts_programs_and_sorting(page, written):
    page.get_by_label("zero").check()
    shows(page, written, 3.0, init="zero")
    page.get_by_label("as printed").check()
    shows(page, written, 3.0, init="zero", version="concise")
    page.get_by_label("matched").check()
    shows(page, written, 3.0, init="zero", version="concise-matched")
    page.get_by_label("sort them").check()
    expected = sorted(at(written, 3.0, "concise-matched", "zero")["weights"], reverse=True)
    np.testing.assert_array_equal(drawn(page, "bars", 1), expected)


@browsing
def test_languages_are_kept_in_the_address_alone(page):
    page.get_by_role("button", name="中文").click()
    page.locator("html[lang=zh]").wait_for(state="attached")
    assert page.locator("h1").inner_text() == "权重衰减：教科书的实验"
    assert page.url.endswith("#lang=zh")
    assert page.evaluate("document.documentElement.lang") == "zh"
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    assert not re.search("[a-z]{4}", re.sub(r"torch(\.optim)?", "", page.locator("main").inner_text()))
    page.get_by_role("button", name="English").click()
    page.locator("html[lang=en]").wait_for(state="attached")
    assert page.locator("h1").inner_text().startswith("Weight decay")


@browsing
def test_dark_and_narrow(page):
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_timeout(300)  # the figures are drawn anew
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@browsing
def test_names_from_data_are_shown_and_not_run(browser, tmp_path):
    name = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
    rows = np.random.default_rng(0).normal(size=(30, 4))
    pl.DataFrame({name: rows[:, 0], **{f"x{i}": rows[:, i] for i in range(1, 4)}}).write_parquet(
        tmp_path / "t.parquet"
    )
    data = wd.TableFile(tmp_path / "t.parquet", target=name, n_train=20)
    found = wd.run_experiment(
        wd.Experiment(data=data, versions=("scratch",), curve=(1.0,), curve_seeds=1, epochs=5)
    )
    path = wd.report(found, tmp_path / "report.html")
    with browser.new_page() as page:
        alerts = []
        page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        assert name in page.locator("#facts").inner_text()
        assert page.locator("img").count() == 0
    assert alerts == []


def pages(folder):
    """A page of every other kind."""
    torch.manual_seed(0)
    X = torch.randn(60, 20, dtype=torch.float64)
    y = 2 * X[:, 0] + torch.randn(60, dtype=torch.float64)
    yield "ridge", wd.ridge_path(X, y, [0.01, 0.1, 1.0, 10.0], cv="loo"), folder / "ridge.html"
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    yield "audit", wd.audit(model, optimizer), folder / "audit.html"
    with wd.Monitor(model, optimizer, every=4) as monitor:
        for _ in range(12):
            loss = model(torch.ones(2, 4)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    yield "monitor", monitor.result(), folder / "monitor.html"


@browsing
def test_pages_of_the_other_kinds(browser, tmp_path):
    with browser.new_context(offline=True) as context:
        page = context.new_page()
        said = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        for kind, result, path in pages(tmp_path):
            page.goto(wd.report(result, path).as_uri())
            assert len(page.title()) > 10
            data = page.evaluate(
                "globalThis.page.figures.map((one) => [one.x, ...one.lines.map((line) => line.y)])"
            )
            if kind == "ridge":
                np.testing.assert_array_equal(data[0][0], result.lambdas)
                np.testing.assert_array_equal(data[0][1], result.scores)
                np.testing.assert_allclose(data[2][1], result.dof)
            elif kind == "monitor":
                np.testing.assert_array_equal(data[0][1], result.table().filter(parameter="0.weight")["norm"])
            else:
                first = page.locator("#tables tbody tr").first.inner_text().split("\t")
                assert first[0] == result.findings[0].code
                assert page.locator("#tables tbody tr").count() == len(result.findings)
            page.set_viewport_size({"width": 390, "height": 800})
            page.wait_for_timeout(300)  # the figures are drawn anew
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, kind
            page.set_viewport_size({"width": 1200, "height": 800})
    assert said == []


def test_the_command_finds_the_kind_of_a_folder(written, tmp_path):
    done = typer.testing.CliRunner().invoke(
        app, ["report", str(written.parent), "--out", str(tmp_path / "p.html")]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "p.html").read_bytes() == written.read_bytes()
    for _, result, path in pages(tmp_path):
        saved = tmp_path / f"{path.stem}.json" if path.stem == "audit" else tmp_path / path.stem
        result.save(saved)
        done = typer.testing.CliRunner().invoke(app, ["report", str(saved), "--quiet"])
        assert done.exit_code == 0, done.output
        assert (saved.with_suffix(".html") if saved.is_file() else saved / "report.html").exists()
    empty = typer.testing.CliRunner().invoke(app, ["report", str(tmp_path)])
    assert "no record of a run" in str(empty.exception)


def test_a_file_of_somebody_else_is_not_replaced(run, tmp_path):
    file = tmp_path / "page.html"
    file.write_text("mine")
    with pytest.raises(InputError, match="not a page of this package's"):
        wd.report(run, file)
    assert file.read_text() == "mine"
    wd.report(run, file, force=True)
    wd.report(run, file)  # which is ours now
    with pytest.raises(InputError, match="no trainings for the slider"):
        wd.report(wd.run_experiment(wd.Experiment(epochs=1, versions=("scratch",), curve=())), file)
    with pytest.raises(TypeError, match="Run, RidgePath, LogisticPath, Sweep, Audit, Monitored, not of dict"):
        wd.report({}, file)


def test_a_run_comes_back_with_its_slider(run, written):
    again = wd.load(written.parent)
    assert again.slider.equals(run.slider)
    values = np.frombuffer(base64.b64decode(re.search(r'"lam": "([^"]+)"', written.read_text())[1]))
    np.testing.assert_array_equal(values, run.slider.head(len(values))["lam"])
