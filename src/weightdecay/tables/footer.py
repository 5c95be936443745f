"""How many rows each row group of a Parquet file has: which polars does not tell."""

import functools
from pathlib import Path


def row_group_rows(path: str) -> list[int] | None:
    """Rows of each row group, read from the file's metadata (Thrift, compact protocol); None if that fails.

    Source: parquet.thrift, FileMetaData: 3 num_rows, 4 row_groups; RowGroup: 1 columns, 3 num_rows.
    """
    try:
        state = Path(path).stat()
    except OSError:
        return None
    return _rows(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _rows(path: str, *_: int) -> list[int] | None:
    """The same; kept for the same file, for a wide one takes a while."""
    try:
        with Path(path).open("rb") as file:
            file.seek(-8, 2)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, 2)
            data = file.read(length)
        return _Compact(data).row_groups()
    except (OSError, IndexError, ValueError):
        return None


class _Compact:
    """Just enough of Thrift's compact protocol to step over what is not wanted."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def zigzag(self) -> int:
        value = self.number()
        return (value >> 1) ^ -(value & 1)

    def fields(self):
        """(number, type) of each field of a struct; the caller steps over its value."""
        last = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            if byte == 0:
                return
            last = last + (byte >> 4) if byte >> 4 else self.zigzag()
            yield last, byte & 15

    def items(self) -> tuple[int, int]:
        """Length and type of a list."""
        byte = self.data[self.at]
        self.at += 1
        return (byte >> 4 if byte >> 4 < 15 else self.number()), byte & 15

    def skip(self, kind: int) -> None:
        if kind in (1, 2):  # a boolean is in its field's type
            return
        if kind == 3:
            self.at += 1
        elif kind in (4, 5, 6):
            self.number()
        elif kind == 7:
            self.at += 8
        elif kind == 8:
            length = self.number()  # which moves on by itself
            self.at += length
        elif kind in (9, 10):
            length, inner = self.items()
            for _ in range(length):
                if inner in (1, 2):
                    self.at += 1
                else:
                    self.skip(inner)
        elif kind == 12:
            for _, inner in self.fields():
                self.skip(inner)
        else:
            raise ValueError(f"type {kind}")

    def row_groups(self) -> list[int]:
        found: list[int] = []
        for field, kind in self.fields():
            if field != 4:
                self.skip(kind)
                continue
            length, _ = self.items()
            for _ in range(length):
                for inner, inner_kind in self.fields():
                    if inner == 3:
                        found.append(self.zigzag())
                    else:
                        self.skip(inner_kind)
        return found
