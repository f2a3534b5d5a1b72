"""Which files are like this one: a glob with a wildcard where the name changes from file to file, and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lakehouse.connectors.columns import clean_names
from lakehouse.connectors.files import escape_glob, glob_regex, is_unfinished
from lakehouse.scaffold.sniff import COMPRESSED_SUFFIXES, Sniffed, first_names

#: A date or a running number at the end of a file's name: the part that changes from file to file.
_CHANGING = re.compile(
    r"(?P<before>^|[-_. ]+(?:part[-_]?)?|(?=\d{4}[-_.]?\d{2}))(?P<changing>\d+(?:[-_. :T]+\d+)*Z?)$",
    re.ASCII,
)
_SHOWN = 5


@dataclass(frozen=True)
class Pattern:
    """``path`` as the YAML has it; ``notes`` are sentences for a person."""

    path: str
    notes: tuple[str, ...]


def base_name(sniffed: Sniffed) -> str:
    """The file's name without its endings and without the date or number that changes: ``orders``."""
    stem, _ = _parts(sniffed)
    changing = _CHANGING.search(stem)
    return (stem[: changing.start()] if changing else stem) or stem


def find_pattern(landing: str, sniffed: Sniffed) -> Pattern:
    """The widest glob that takes no file with other columns: relative below the landing folder, else absolute.

    ``orders_2024-01-31.csv`` → ``orders_[0-9]*.csv``; ``film.csv`` only itself, or ``film_actor.csv`` would be a film.
    """
    stem, ending = _parts(sniffed)
    exact = escape_glob(stem + ending)
    changing = _CHANGING.search(stem)
    if changing is None:
        return Pattern(_below(landing, sniffed.path, exact), (_exactly(exact, stem, ending),))
    start = escape_glob(stem[: changing.start("changing")])
    shape = "".join("[0-9]" if char.isdigit() else escape_glob(char) for char in changing["changing"])
    name, others, refused = exact, [], dict[str, list[str]]()
    for middle in ("[0-9]*", shape):
        candidate = f"{start}{middle}{escape_glob(ending)}"
        matching = _others(sniffed.path, candidate)
        foreign = _with_other_columns(sniffed, matching)
        if not foreign:
            name, others = candidate, matching
            break
        refused[candidate] = foreign
    also = (
        f"it matches {_listed(others)} beside this file" if others else "no other file beside it matches yet"
    )
    note = f"path: {name} ({changing['changing']} changes from file to file); {also}"
    if name == exact:
        note = f"path: {name}, this file alone"
    notes = [note]
    if refused:
        widest, foreign = next(iter(refused.items()))
        notes.append(
            f"{widest} would take files with other columns, too: {_listed(foreign)}; to take more than {name}, give "
            "each kind of file a folder of its own, and correct path"
        )
    return Pattern(_below(landing, sniffed.path, name), tuple(notes))


def _parts(sniffed: Sniffed) -> tuple[str, str]:
    """(stem, ending) of the name. What says how a file is compressed is left out: globs match with and without it."""
    name = sniffed.plain_name
    compressed = sniffed.path.name.removeprefix(name)
    ending = Path(name).suffix
    if ending[1:2].isdigit():  # orders.csv.2024-01-31
        ending = ""
    stem = name.removesuffix(ending)
    return stem, ending + ("" if compressed in COMPRESSED_SUFFIXES else compressed)


def _exactly(exact: str, stem: str, ending: str) -> str:
    return (
        f"path: {exact} only, as no date or number in the name says what changes; a new version of it is held until "
        f"`lakehouse accept`. If later files have other names, put a wildcard there: {escape_glob(stem)}_[0-9]*{ending}"
    )


def _below(landing: str, file: Path, name: str) -> str:
    try:
        folder = file.parent.relative_to(landing)
    except ValueError:
        folder = file.parent
    return Path(escape_glob(folder.as_posix()), name).as_posix()


def _others(file: Path, glob: str) -> list[str]:
    """Names of the files beside this one that the pipeline would take, too."""
    matches = re.compile(glob_regex(glob))
    with os.scandir(file.parent) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.name != file.name
            and matches.fullmatch(entry.name)
            and not is_unfinished(entry.name)
            and entry.is_file()
        )


def _with_other_columns(sniffed: Sniffed, others: Sequence[str]) -> list[str]:
    """CSV files whose columns are not this file's. Some more or some fewer are: columns come and go with time."""
    dialect = sniffed.dialect
    if dialect is None:
        return []
    own = first_names(sniffed.path, dialect)
    foreign = []
    for name in others:
        found = first_names(sniffed.path.with_name(name), dialect)
        mine, theirs = _columns(own), _columns(found)
        alike = (mine <= theirs or theirs <= mine) if dialect.header else len(own) == len(found)
        if found and not alike:
            foreign.append(name)
    return foreign


def _columns(names: Sequence[str]) -> set[str]:
    return {name.lower() for name in clean_names(names)}


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
