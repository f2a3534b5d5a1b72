"""A row as one value: what it takes to find a whole row in one place (``row_copies``)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from lakehouse import names

if TYPE_CHECKING:
    import pyarrow as pa

#: Of what a copy is made of; another one is not read.
_FORMAT = 1
_CHECK_BYTES = 8
_ENDIANNESS: Literal["little", "big"] = sys.byteorder
_VALID = "valid"
_OTHERS, _NOTHING = "__others", "__nothing"
_SCALARS = (
    pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32, pl.Float64,
    pl.Boolean, pl.Date, pl.Datetime,
)  # fmt: skip


@dataclass(frozen=True)
class RowLayout:
    """A checksum, then ``scalars`` and the lengths of ``texts`` at fixed places, and behind them the texts.

    Decimals are texts. Of the instants at which a version was observed the first is a scalar; the others, which few have, are a text.
    """

    schema: Mapping[str, pl.DataType]
    scalars: Mapping[str, pl.DataType]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, schema: Mapping[str, pl.DataType]) -> RowLayout | None:
        """None for a table with a column of another kind."""
        scalars = {name: dtype for name, dtype in schema.items() if isinstance(dtype, _SCALARS)}
        texts = [name for name, dtype in schema.items() if isinstance(dtype, pl.String | pl.Decimal)]
        observed = schema.get(names.OBSERVED_AT)
        if isinstance(observed, pl.List) and isinstance(observed.inner, pl.Datetime):
            scalars[names.OBSERVED_AT] = observed.inner
            texts.append(_OTHERS)
        if not schema.keys() <= {*scalars, *texts}:
            return None
        return cls(dict(schema), scalars, tuple(texts))

    @cached_property
    def identity(self) -> str:
        """What a copy means. Texts, numbers and hashes may be others in another release of the engine."""
        return repr([_FORMAT, pl.__version__, *((name, str(dtype)) for name, dtype in self.schema.items())])

    @cached_property
    def _record(self) -> Any:
        """The scalars of a row, and the lengths of its texts: so many bytes come before the texts."""
        import numpy

        fields: list[Any] = [(_VALID, "u1", (len(self.schema),))]
        fields += [(f"v{number}", _numpy(dtype)) for number, dtype in enumerate(self.scalars.values())]
        fields += [(f"t{number}", "u4") for number in range(len(self.texts))]
        return numpy.dtype(fields)

    def packed(self, frame: pl.DataFrame) -> pa.Array:
        """A value (``large_binary``) for each row.

        Raises:
            ValueError: a version was observed never, or at no instant.
        """
        import numpy
        import pyarrow as pa
        import pyarrow.compute

        records = numpy.zeros(frame.height, self._record)
        for number, name in enumerate(self.schema):
            records[_VALID][:, number] = frame[name].is_not_null().to_numpy()
        frame = _apart(frame)
        for number, name in enumerate(self.scalars):
            plain = frame[name].to_physical()
            records[f"v{number}"] = plain.fill_null(False if plain.dtype == pl.Boolean else 0).to_numpy()
        texts = frame.select(
            pl.repeat("", pl.len()).alias(_NOTHING),
            *(pl.col(name).cast(pl.String).fill_null("") for name in self.texts),
        )
        for number, name in enumerate(self.texts):
            records[f"t{number}"] = texts[name].str.len_bytes().to_numpy()
        together = texts.select(pl.concat_str(pl.all()).cast(pl.Binary)).to_series().rechunk()
        binary, width = pa.large_binary(), self._record.itemsize
        fixed = pa.Array.from_buffers(pa.binary(width), len(records), [None, pa.py_buffer(records)])
        behind = together.to_arrow(compat_level=pl.CompatLevel.oldest())
        nothing = pa.scalar(b"", binary)
        rows = pa.compute.binary_join_element_wise(fixed.cast(binary), behind, nothing)
        checks = pl.Series(pl.from_arrow(rows), dtype=pl.Binary).hash().to_numpy()
        check = pa.Array.from_buffers(pa.binary(_CHECK_BYTES), len(rows), [None, pa.py_buffer(checks)])
        return pa.compute.binary_join_element_wise(check.cast(binary), rows, nothing)

    def unpacked(self, rows: pa.Array) -> pl.DataFrame:
        """What was packed.

        Raises:
            ValueError: a value is not as it was.
        """
        import numpy

        width = self._record.itemsize
        values = pl.Series(pl.from_arrow(rows), dtype=pl.Binary)
        check = values.bin.head(_CHECK_BYTES).bin.reinterpret(dtype=pl.UInt64, endianness=_ENDIANNESS)
        values = values.bin.slice(_CHECK_BYTES)
        if not check.equals(values.hash()):
            raise ValueError("it is damaged")
        fixed = values.bin.head(width).rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
        records = numpy.frombuffer(fixed.buffers()[2], self._record, count=len(fixed))
        columns = {}
        for number, (name, dtype) in enumerate(self.scalars.items()):
            columns[name] = pl.Series(numpy.ascontiguousarray(records[f"v{number}"])).cast(dtype)
        at = numpy.full(len(values), width, numpy.int64)
        for number, name in enumerate(self.texts):
            length = numpy.ascontiguousarray(records[f"t{number}"])
            pieces = pl.DataFrame({"row": values, "at": at, "length": length})
            text = pl.col("row").bin.slice(pl.col("at"), pl.col("length")).cast(pl.String)
            columns[name] = pieces.select(text).to_series()
            at = at + length
        frame = _joined(pl.DataFrame(columns), self.schema)
        valid = {name: records[_VALID][:, number] == 1 for number, name in enumerate(self.schema)}
        holds = pl.DataFrame({name: pl.Series(flags) for name, flags in valid.items() if not flags.all()})
        return frame.select(
            (pl.when(holds[name]).then(pl.col(name)) if name in holds.columns else pl.col(name))
            .cast(dtype)
            .alias(name)
            for name, dtype in self.schema.items()
        )


def _apart(frame: pl.DataFrame) -> pl.DataFrame:
    """The instants at which a version was observed as the first of them and the others."""
    if names.OBSERVED_AT not in frame.columns:
        return frame
    observed = pl.col(names.OBSERVED_AT)
    first, others = observed.list.first(), pl.lit(None, pl.String)
    several = observed.list.len() > 1
    if frame.select(several.any()).item():
        rest = observed.list.slice(1).list.eval(pl.element().to_physical().cast(pl.String))
        others = pl.when(several).then(rest.list.join(",", ignore_nulls=False))
    apart = frame.with_columns(first, others.alias(_OTHERS))
    missing = (observed.is_not_null() & first.is_null()) | (several & others.is_null())
    if frame.select(missing.any()).item():
        raise ValueError(f"an instant is missing in {names.OBSERVED_AT}")
    return apart


def _joined(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    if names.OBSERVED_AT not in frame.columns:
        return frame
    one, others = pl.concat_list(names.OBSERVED_AT), pl.col(_OTHERS)
    if (frame[_OTHERS] == "").all():
        return frame.with_columns(one)
    some = pl.when(others != "").then(others)
    more = some.str.split(",").list.eval(pl.element().cast(pl.Int64)).cast(schema[names.OBSERVED_AT])
    return frame.with_columns(
        pl.when(others == "").then(one).otherwise(pl.concat_list(names.OBSERVED_AT, more))
    )


def _numpy(dtype: pl.DataType) -> Any:
    plain = pl.Series(dtype=dtype).to_physical()
    return plain.to_numpy().dtype if plain.dtype != pl.Boolean else "?"
