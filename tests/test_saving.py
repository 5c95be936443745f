"""Files are whole or not there."""

import math

import pytest

from weightdecay.errors import InputError
from weightdecay.saving import read_json, replacing, writable_folder, write_json, write_text


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written: .*none/a\.txt"):
        write_text(tmp_path / "none" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "folder", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_json(tmp_path):
    write_json(tmp_path / "a.json", {"λ": [1, 2.5]})
    assert read_json(tmp_path / "a.json") == {"λ": [1, 2.5]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", math.nan)
    assert read_json(tmp_path / "a.json") == {"λ": [1, 2.5]}
    (tmp_path / "b.json").write_text("{")
    for name in ("b.json", "c.json"):
        with pytest.raises(InputError, match=name):
            read_json(tmp_path / name)


def test_output_folders(tmp_path):
    assert writable_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"output folder cannot be written: .*file"):
            writable_folder(path)


def test_what_is_no_path_is_refused():
    with pytest.raises(InputError, match=r"^not a path: folder = 3; give the name of a folder$"):
        writable_folder(3)
