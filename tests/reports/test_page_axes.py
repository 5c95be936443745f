"""Log axes of pages: labels and lines at any span, and none over another at any width."""

import itertools

import pytest
import torch
from tests.browser import browsing, opened

import weightdecay as wd

LABELS = """(i) => { const u = page.charts["figure-0"], a = u.axes[i], scale = i === 1 ? "y" : "x";
  const label = (value, k) => [a._values[k], u.valToPos(value, scale), value];
  return a._splits.map(label).filter(([text]) => text); }"""


def table(scale, noise, rows=60):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 12, generator=generator, dtype=torch.float64)
    y = X.sum(1) * scale + noise * torch.randn(rows, generator=generator, dtype=torch.float64)
    return X, y


# Errors from about noise² to 12 scale², and grids of λ.
CASES = {
    "78 to 6000": (22.0, 7.8, None),
    "within a decade": (1.0, 1.2, None),
    "a dozen decades": (1e-3, 1e-9, None),
    "from zero": (3.0, 0.5, [0, 1e-12, 1e-9, 1e-6, 1e-3, 1e-1, 1.0, 10.0]),
    "small": (3.0, 0.5, [1e-13, 1e-10, 1e-7, 1e-4, 1e-1, 100.0]),
}


@browsing
@pytest.mark.filterwarnings("ignore::weightdecay.errors.WeightDecayWarning")
@pytest.mark.parametrize("case", CASES)
def test_labels_are_there_and_apart(browser, tmp_path, case):
    scale, noise, lambdas = CASES[case]
    X, y = table(scale, noise)
    path = wd.ridge_path(X, y, lambdas, cv="loo")
    page = wd.report(path, tmp_path / "page.html", y=y)
    for width, lang in ((1000, ""), (390, "#lang=zh")):
        with opened(browser, page, lang, viewport={"width": width, "height": 800}) as shown:
            for side, least in ((0, 35), (1, 12)):
                found = shown.evaluate(LABELS, side)
                assert len(found) >= 2, (width, side, found)
                places = sorted(place for _, place, _ in found)
                gaps = [after - before for before, after in itertools.pairwise(places)]
                assert min(gaps) >= least, (width, side, found)
                for text, _, value in found:
                    assert float(text) == pytest.approx(value, rel=1e-3)
