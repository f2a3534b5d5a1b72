"""Column names as a source writes them, and as a table can hold them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from lakehouse import names

_INVALID = re.compile(r"[^A-Za-z0-9_]+")
_RESERVED = {*names.LINEAGE, names.RESCUED}


def clean_names(raw: Sequence[str]) -> list[str]:
    """A valid, unique table column for each source column, in order.

    ``Flight No.`` → ``Flight_No``, ``größe`` → ``grosse``, `` `` → ``column_3``, a second ``id`` or ``ID`` → ``id_2``,
    ``2nd`` → ``_2nd``. The same input always gives the same names, so a re-read file lands in the same columns.
    """
    taken: set[str] = set()
    cleaned: list[str] = []
    for position, name in enumerate(raw, start=1):
        text = unicodedata.normalize("NFKD", name.strip().lstrip("\ufeff").replace("ß", "ss"))
        text = text.encode("ascii", "ignore").decode()
        text = _INVALID.sub("_", text)
        text = text if _INVALID.sub("_", name) == name else text.strip("_")
        text = text or f"column_{position}"
        text = f"_{text}" if text[0].isdigit() else text
        text = f"source{text}" if text in _RESERVED else text
        candidate, count = text, 1
        while candidate.lower() in taken:
            count += 1
            candidate = f"{text}_{count}"
        taken.add(candidate.lower())
        cleaned.append(candidate)
    return cleaned
