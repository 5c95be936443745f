"""A table read in blocks gives what the same table gives in memory; bad tables are refused by name."""

import numpy as np
import polars as pl
import pytest
import torch

import weightdecay as wd
from weightdecay.errors import InputError
from weightdecay.ridge.folds import splits
from weightdecay.ridge.moments import Penalty
from weightdecay.ridge.problem import Problem
from weightdecay.ridge.streaming import statistics, tall_from
from weightdecay.ridge.tall import tall
from weightdecay.tables import parquet_blocks
from weightdecay.tables.parquet_blocks import row_group_rows
from weightdecay.tables.source import open_source


def table(n=230, p=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 10
    y = X @ rng.standard_normal((p, 2)) + rng.standard_normal((n, 2))
    columns = {f"x{j}": X[:, j] for j in range(p)}
    return pl.DataFrame({**columns, "y": y[:, 0], "z": y[:, 1], "w": rng.random(n), "note": ["a"] * n})


def save(frame, folder, kind, sizes):
    folder.mkdir(exist_ok=True)
    first = 0
    for k, size in enumerate(sizes):
        part = frame.slice(first, size)
        if kind == "csv":
            part.write_csv(folder / f"{k}.csv")
        else:
            part.write_parquet(folder / f"{k}.parquet", row_group_size=37)
        first += size
    return folder


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("sizes", [[230], [100, 30, 100], [1, 228, 1]])
def test_shards_are_the_whole(tmp_path, monkeypatch, kind, sizes):
    monkeypatch.setattr("weightdecay.tables.csv_blocks.BYTES", 1000)
    monkeypatch.setattr("weightdecay.ridge.streaming.SHARD_ROWS", 80)
    frame = table()
    folder = save(frame, tmp_path / "t", kind, sizes)
    X = torch.from_numpy(frame.select(pl.col("^x.*$")).to_numpy().copy())
    y = torch.from_numpy(frame.select("y", "z").to_numpy().copy())
    w = torch.from_numpy(frame["w"].to_numpy().copy())
    alphas = torch.tensor([0.1, 10.0]).double()
    for weights in (None, "w"):
        drop = ["note"] if weights else ["note", "w"]
        stats = statistics(folder, ["y", "z"], drop, weights=weights, folds=4, seed=7)
        assert stats.rows == 230
        problem = Problem(X, y, None if weights is None else w / w.mean(), None, "free", True)
        memory = tall(problem, splits(4, 230, 7).scheme)
        streamed = tall_from(stats, None, Penalty(None, "free", True))
        a, b = memory.curve(alphas), streamed.curve(alphas)
        assert float((b.mean / a.mean - 1).abs().max()) < 1e-12
        assert float((b.folds / a.folds - 1).abs().max()) < 1e-12
        assert float((streamed.out_of_fold(alphas) - memory.out_of_fold(alphas)).abs().max()) < 1e-11
        for criterion in ("loo", "gcv", "evidence"):
            a = tall(problem, criterion).curve(alphas)
            b = tall_from(stats, criterion, Penalty(None, "free", True)).curve(alphas)
            assert float((b.mean / a.mean - 1).abs().max()) < 1e-12


def test_without_a_second_pass_the_precision_says_what_is_lost(tmp_path):
    frame = table().with_columns(y=pl.col("x0") + pl.col("x1") + 1e-7 * pl.col("y"))
    frame.write_parquet(tmp_path / "t.parquet")
    stats = statistics(tmp_path / "t.parquet", "y", ["note", "z", "w"], folds=4)
    alphas = torch.tensor([1e-8]).double()
    again = tall_from(stats).curve(alphas)
    once = tall_from(stats, second_pass=False).curve(alphas)
    error = float((once.mean / again.mean - 1).abs().max())
    assert 1e-9 < error <= float(once.precision[0])
    with pytest.raises(InputError, match="second pass"):
        tall_from(stats, "loo", second_pass=False).curve(alphas)


def test_rows_of_weight_zero_take_no_part(tmp_path):
    frame = table().with_columns(w=pl.when(pl.int_range(pl.len()) % 3 == 0).then(0.0).otherwise(pl.col("w")))
    frame.write_parquet(tmp_path / "t.parquet")
    frame.filter(pl.col("w") > 0).write_parquet(tmp_path / "kept.parquet")
    alphas = torch.tensor([1.0]).double()
    a, b = (
        tall_from(statistics(tmp_path / name, "y", ["note", "z"], weights="w"), "gcv").curve(alphas)
        for name in ("t.parquet", "kept.parquet")
    )
    assert float(a.mean) == pytest.approx(float(b.mean), rel=1e-12)


def test_types_and_progress(tmp_path):
    frame = table().select("x0", "y", b=pl.col("x1") > 10, i=(pl.col("x2") * 10).cast(pl.Int16))
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_csv(tmp_path / "t.csv")
    seen = {}
    for kind, known in (("parquet", 230), ("csv", None)):
        calls = []
        stats = statistics(
            tmp_path / f"t.{kind}", "y", folds=2, on_progress=lambda *a, calls=calls: calls.append(a)
        )
        assert calls[-1] == (230, known)
        seen[kind] = stats.folds[0].G
    assert float((seen["csv"] - seen["parquet"]).abs().max()) < 1e-10
    single = table().select(pl.col("x0", "x1").cast(pl.Float32), "y")
    single.write_parquet(tmp_path / "s.parquet")
    source = open_source(tmp_path / "s.parquet", "y")
    assert source.dtype == torch.float32
    block = next(source.blocks())
    assert torch.equal(
        block.y[:, 0], torch.from_numpy(single["y"].to_numpy().copy())
    )  # whole, not cut to float32


def test_row_groups_and_parts_of_large_ones(tmp_path, monkeypatch):
    table().write_parquet(tmp_path / "t.parquet", row_group_size=100)
    groups = row_group_rows(str(tmp_path / "t.parquet"))
    assert sum(groups) == 230
    assert len(groups) > 1
    whole = torch.cat([b.X.clone() for b in open_source(tmp_path / "t.parquet", "y", ["note"]).blocks()])
    monkeypatch.setattr(parquet_blocks, "HELD", 1000)
    monkeypatch.setattr(parquet_blocks, "AT_ONCE", 30)
    parts = [b.X.clone() for b in open_source(tmp_path / "t.parquet", "y", ["note"]).blocks()]
    assert len(parts) > 10
    assert torch.equal(torch.cat(parts), whole)
    assert row_group_rows(str(tmp_path / "none")) is None


GOOD = "a,b,y\n1,2,3\n2,5,4\n3,1,7\n4,4,4\n"


@pytest.mark.parametrize(
    ("files", "options", "parts"),
    [
        ({"t.csv": "a,b,y\n1,2,3\n\n4,x,5\n"}, {}, ["not a number", "row 3", "'b'", "'x'"]),
        ({"t.csv": "a,b,y\n1,2,3\n4,,5\n"}, {}, ["empty", "row 2", "'b'"]),
        ({"t.csv": "a,b,y\n1,2,3\n4,nan,5\n"}, {}, ["row 2", "'b'", "nan"]),
        ({"t.csv": "a,b,y\n1,2,inf\n4,1,5\n"}, {}, ["row 1", "'y'", "inf"]),
        ({"t.csv": "a,b,y\n1,2,1e200\n4,1,5\n"}, {}, ["row 1", "'y'", "beyond"]),
        ({"t.csv": "a,a,y\n1,2,3\n"}, {}, ["one name", "'a'"]),
        ({"t.csv": "a,b,y\n"}, {}, ["no rows"]),
        ({"t.csv": ""}, {}, ["empty"]),
        ({"t.csv": "a,b,y\n1,2,3,4\n"}, {}, ["too many cells", "row 1"]),
        ({"t.csv": "a:b:y\n1:2:3\n"}, {}, ["no such column", "--separator"]),
        ({"1.csv": GOOD, "2.csv": "a,c,y\n1,2,3\n"}, {}, ["columns differ", "2.csv", "no 'b'", "also 'c'"]),
        ({"1.csv": GOOD, "2.csv": "a,b,y\n"}, {}, ["no rows", "2.csv"]),
        ({}, {}, ["no table in the folder"]),
        ({"t.csv": GOOD}, {"target": ["y", "y"]}, ["named twice", "'y'"]),
        ({"t.csv": GOOD}, {"weights": "y"}, ["as target and as weights", "'y'"]),
        ({"t.csv": GOOD}, {"drop": ["y"]}, ["as target and as drop"]),
        ({"t.csv": GOOD}, {"drop": ["a", "b"]}, ["no column is left"]),
        ({"t.csv": GOOD}, {"target": "q"}, ["no such column", "'q'", "'a', 'b', 'y'"]),
        ({"t.csv": GOOD}, {"folds": 5}, ["fewer rows than folds"]),
        ({"t.csv": "a,b,y\n1,2,3\n"}, {}, ["too few rows"]),
        ({"t.csv": "a,b,y\n1,2,3.1\n2,5,3.1\n3,7,3.1\n"}, {}, ["target is constant", "'y'", "3.1"]),
        ({"t.csv": "a,b,y\n1,-2,3\n2,5,3\n"}, {"weights": "b"}, ["weight is negative", "row 1", "'b'"]),
        (
            {"t.csv": "a,b,y\n1,0,3\n2,0,3\n"},
            {"weights": "b"},
            ["fewer than two rows have a weight above 0", "column 'b' of"],
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, files, options, parts):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    options = {"target": "y", **options}
    with pytest.raises(InputError) as caught:
        statistics(tmp_path, **options)
    for part in parts:
        assert part in str(caught.value)


def test_bad_parquet_files_are_named(tmp_path):
    path = tmp_path / "t.parquet"
    frame = table().drop("note")
    frame.write_parquet(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut short: .*t\.parquet"):
        statistics(path, "y")
    frame.head(0).write_parquet(path)
    with pytest.raises(InputError, match=r"no rows: .*t\.parquet"):
        statistics(path, "y")
    broken = bytearray(data)
    broken[len(data) // 3 : len(data) // 3 + 400] = bytes(400)
    path.write_bytes(bytes(broken))
    with pytest.raises(InputError, match=r"t\.parquet"):
        statistics(path, "y")
    table().with_columns(
        note=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("a")).otherwise(pl.lit("1"))
    ).write_parquet(path)
    with pytest.raises(InputError, match=r"not a number: row 1, column 'note'.*'a'"):
        statistics(path, "y")
    frame.with_columns(
        x2=pl.when(pl.int_range(pl.len()) == 100).then(None).otherwise(pl.col("x2"))
    ).write_parquet(path)
    with pytest.raises(InputError, match=r"row 101, column 'x2'.*empty"):
        statistics(path, "y")
    frame.with_columns(
        x2=pl.when(pl.int_range(pl.len()) == 100).then(np.nan).otherwise(pl.col("x2"))
    ).write_parquet(path)
    with pytest.raises(InputError, match=r"row 101, column 'x2'.*nan"):
        statistics(path, "y")
    with pytest.raises(InputError, match="no such file"):
        statistics(tmp_path / "none.parquet", "y")


@pytest.mark.filterwarnings("ignore")
def test_workers_give_the_same_bits(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("weightdecay.ridge.streaming.SHARD_ROWS", 80)
    folder = save(table().drop("note"), tmp_path / "t", "parquet", [100, 30, 100])
    options = {"target": ["y", "z"], "weights": "w", "folds": 3}
    here = statistics(folder, **options)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        calls = []
        there = statistics(folder, **options, engine=client, on_progress=lambda *a: calls.append(a))
        assert calls[-1] == (230, 230)
        for a, b in zip(here.folds, there.folds, strict=True):
            assert all(
                torch.equal(getattr(a, part), getattr(b, part)) for part in ("mean", "rest", "G", "g", "ss")
            )
        data = (folder / "1.parquet").read_bytes()
        source = open_source(folder, "y", ["z", "w"])
        (folder / "1.parquet").write_bytes(data[:-50])
        with pytest.raises(InputError, match=r"cut short: .*1\.parquet"):
            statistics(source, folds=3, engine=client)
        (folder / "1.parquet").unlink()
        with pytest.raises(InputError, match=r"1\.parquet"):
            statistics(source, folds=3, engine=client)


@pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
def test_a_file_whose_moments_are_not_enough_is_read_whole(tmp_path, monkeypatch):
    """Blocks lend their memory; what is kept of them is not overwritten by what is read later."""
    monkeypatch.setattr("weightdecay.tables.parquet_blocks.HELD", 4000)
    monkeypatch.setattr("weightdecay.tables.source.ROWS", 16)
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(400, 6, generator=generator, dtype=torch.float64)
    X[:, 5] = X[:, 0] + 1e-6 * X[:, 5]
    y = X[:, 1] + torch.randn(400, generator=generator, dtype=torch.float64)
    frame = pl.DataFrame(X.numpy(), schema=[f"x{j}" for j in range(6)]).with_columns(y=pl.Series(y.numpy()))
    frame.write_parquet(tmp_path / "table.parquet", row_group_size=50)
    lambdas = [1e-12, 1e-6, 1e2]
    found = wd.ridge_path(tmp_path / "table.parquet", "y", lambdas, cv=4)
    assert "400 × 6 inputs" in found.route
    assert torch.allclose(found.scores, wd.ridge_path(X, y, lambdas, cv=4).scores, rtol=1e-12)
