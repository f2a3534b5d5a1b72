"""The quality benchmark: known corruptions at known places in real data, through the real bronze and silver stages.

    python benchmarks/quality.py                 a year of flights and weather, every kind in 1 row of 1,000
    python benchmarks/quality.py --write         the same, and docs/quality.md anew
    python benchmarks/quality.py --files 12      a small form of it

Every kind takes its own rows, so that no row is spoilt twice. A spoilt row counts as caught when it is refused,
deduplicated, warned of or found by the reference check at exactly its place (file and line). Every sound row has
to be in silver, with the values that a lake without any corruption has. Nothing is random but by ``--seed``.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from asset_checks.base import Subject
from asset_checks.references import reference_checks
from benchmarks.corruptions import KINDS, Kind
from benchmarks.quality_report import as_markdown, write_page
from benchmarks.spoilt_files import FILE_KINDS, FileKind
from lakehouse.bronze import ingest
from lakehouse.demo import source
from lakehouse.ledger import Ledger
from lakehouse.pipelines import load_pipelines
from lakehouse.settings import load_settings
from lakehouse.silver import refine
from lakehouse.storage import Lake

SHARE = 1000
#: A file kind spoils so many files, so that each is tried on different data.
FILES_PER_KIND = 3
_LINEAGE = ["_source_file", "_source_row", "_batch_id"]


@dataclass
class Unit:
    """One injected corruption: the physical lines (1 is the header) that stand for it."""

    kind: Kind
    file: str
    lines: tuple[int, ...]


@dataclass
class Day:
    """One daily file: its lines, which of them were spoilt, and the line of the sound copy that each came from."""

    name: str
    header: bytes
    sound: list[bytes]
    spoilt: dict[int, tuple[Kind, list[bytes]]] = field(default_factory=dict)

    def build(self) -> tuple[bytes, list[Unit], dict[int, int]]:
        """(content, units, line of a sound row → its line without corruptions)."""
        out, units, origin = [self.header], list[Unit](), dict[int, int]()
        for index, line in enumerate(self.sound):
            if index in self.spoilt:
                kind, lines = self.spoilt[index]
                at = len(out) + 1
                units.append(Unit(kind, self.name, tuple(range(at, at + len(lines)))))
                out += lines
            else:
                out.append(line)
                origin[len(out)] = index + 2
        return b"\n".join(out) + b"\n", units, origin


class Lab:
    """A lake in a folder of its own, with the demo's pipelines."""

    def __init__(self, root: Path) -> None:
        self.settings = load_settings(root=str(root))
        self.lake = Lake.from_settings(self.settings)
        self.pipelines = load_pipelines(self.settings)

    def put(self, files: Mapping[str, bytes]) -> None:
        for name, content in files.items():
            path = Path(self.settings.landing, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def run(self, tables: Iterable[str]) -> None:
        for name in tables:
            ingest(self.lake, self.settings, self.pipelines[name])
            refine(self.lake, self.settings, self.pipelines[name])

    def silver(self, table: str) -> pl.DataFrame:
        """Silver with the physical line of every row and its file below the landing folder."""
        frame = self.lake.table("silver", table).snapshot().scan().collect()
        return frame.with_columns(
            file=pl.col("_source_file").str.strip_prefix(self.settings.landing + "/"),
            line=pl.col("_source_row") + 1,
        )

    def quarantine(self, table: str) -> pl.DataFrame:
        """(file, line or None, rule) of everything refused; a whole file has no line."""
        snapshot = self.lake.table("quarantine", table).snapshot_or_none()
        if snapshot is None:
            return pl.DataFrame(schema={"file": pl.String(), "line": pl.Int64(), "rule": pl.String()})
        frame = snapshot.scan().collect()
        by_position = pl.col("_source_position").str.extract(r"^line (\d+)").cast(pl.Int64)
        return frame.select(
            file=pl.col("_source_file").str.strip_prefix(self.settings.landing + "/"),
            line=pl.when(pl.col("_stage") == "bronze").then(by_position).otherwise(pl.col("_source_row") + 1),
            rule=pl.col("_broken_rules").list.first(),
        )


def run(folder: Path, *, seed: int = 2013, files: int | None = None) -> dict[str, Any]:
    """The whole benchmark below ``folder``; the result as plain values.

    ``files``: so many daily files of each table for the line and value kinds (None: the year), with every kind
    at least five times.
    """
    started = time.monotonic()
    rng = random.Random(seed)
    sound = {table: source.daily_files(table) for table in ("flights", "weather")}
    kept_whole = _file_kinds_days(sound["flights"], rng, files)
    days = {
        table: _days(found, kept_whole if table == "flights" else {}, files) for table, found in sound.items()
    }
    clean_files = {d.name: sound[t][d.name] for t in days for d in days[t]}
    clean_files |= {name: sound["flights"][name] for name in kept_whole}
    least = 0 if files is None else 5
    for table, found in days.items():
        _inject(found, [kind for kind in KINDS if kind.table == table], rng, least)
    content, units, origins = dict[str, bytes](), list[Unit](), dict[str, dict[int, int]]()
    for found in days.values():
        for day in found:
            content[day.name], mine, origins[day.name] = day.build()
            units += mine
    spoilt = {name: (kind, *kind.spoil(sound["flights"][name])) for name, kind in kept_whole.items()}
    content |= {name + suffix: data for name, (_, suffix, data) in spoilt.items()}
    content |= {
        name: sound["flights"][name] for name, (kind, _, _) in spoilt.items() if kind.expect == "recognised"
    }

    clean, dirty = Lab(folder / "clean"), Lab(folder / "dirty")
    dimensions = source.snapshot_files()
    clean.put({**clean_files, **dimensions})
    clean.run(days)
    dirty.put({**content, **dimensions})
    dirty.run([*days, "airlines", "airports", "planes"])
    report = _judge(clean, dirty, days, units, origins, spoilt)
    return {
        "seed": seed,
        "rows": {table: sum(len(day.sound) for day in found) for table, found in days.items()},
        **report,
        "seconds": round(time.monotonic() - started, 1),
    }


def _file_kinds_days(
    flights: Mapping[str, bytes], rng: random.Random, files: int | None
) -> dict[str, FileKind]:
    """Daily files for the file kinds; the first stays sound, so that the table's columns are the real ones."""
    count = FILES_PER_KIND if files is None else 1
    names = rng.sample(sorted(flights)[1:], count * len(FILE_KINDS))
    return {name: FILE_KINDS[index % len(FILE_KINDS)] for index, name in enumerate(names)}


def _days(found: Mapping[str, bytes], without: Mapping[str, Any], files: int | None) -> list[Day]:
    names = [name for name in sorted(found) if name not in without][:files]
    return [Day(name, *_lines(found[name])) for name in names]


def _lines(content: bytes) -> tuple[bytes, list[bytes]]:
    lines = content.splitlines()
    return lines[0], lines[1:]


def _inject(days: list[Day], kinds: list[Kind], rng: random.Random, least: int) -> None:
    """Spoil 1 row of ``SHARE`` for each kind. No two neighbours are spoilt: each must be judged by itself."""
    places = [(day, index) for day in days for index in range(len(day.sound))]
    rng.shuffle(places)
    count = max(len(places) // SHARE, least)
    for kind in kinds:
        done, passed_over = 0, []
        while done < count and places:
            day, index = places.pop()
            if {index - 1, index, index + 1} & day.spoilt.keys():
                continue
            lines = kind.spoil(day.sound[index], rng)
            if lines is None:
                passed_over.append((day, index))
                continue
            day.spoilt[index] = (kind, lines)
            done += 1
        places = passed_over + places


def _judge(
    clean: Lab,
    dirty: Lab,
    days: Mapping[str, list[Day]],
    units: list[Unit],
    origins: Mapping[str, Mapping[int, int]],
    spoilt: Mapping[str, tuple[FileKind, str, bytes]],
) -> dict[str, Any]:
    """Recall and false positives per kind."""
    caught: Counter[str] = Counter()
    injected: Counter[str] = Counter(unit.kind.name for unit in units)
    expect = {kind.name: kind for kind in KINDS}
    missed: dict[str, list[str]] = defaultdict(list)
    false: list[dict[str, Any]] = []
    wrong_values = 0
    for table in days:
        silver, refused = dirty.silver(table), dirty.quarantine(table)
        accepted = set(silver.select("file", "line").iter_rows())
        rejected = {(file, line): rule for file, line, rule in refused.iter_rows()}
        for unit in (unit for unit in units if unit.kind.table == table):
            spots = [(unit.file, line) for line in unit.lines]
            if _is_caught(unit.kind, spots, accepted, rejected):
                caught[unit.kind.name] += 1
            elif unit.kind.expect in ("refused", "deduplicated") and len(missed[unit.kind.name]) < 3:
                missed[unit.kind.name].append(f"{unit.file} line {unit.lines[0]}")
        baseline = {
            (file, line) for file, line, _ in clean.quarantine(table).iter_rows()
        }  # rows that the real data itself has wrong
        by_place = {(unit.file, line): unit.kind.name for unit in units for line in unit.lines}
        for day in days[table]:
            for line, before in origins[day.name].items():
                if (day.name, line) in accepted or (day.name, before) in baseline:
                    continue
                near = by_place.get((day.name, line - 1)) or by_place.get((day.name, line + 1)) or "none"
                false.append(
                    {"place": f"{day.name} line {line}", "rule": rejected.get((day.name, line)), "near": near}
                )
        wrong_values += _different_values(clean.silver(table), silver, origins)
    for name, count in _counted_by_checks(dirty, units).items():
        caught[name] = count
    kinds = [
        {
            "table": kind.table, "level": kind.level, "kind": name, "expect": kind.expect, "injected": injected[name],
            "caught": caught[name], "false_positives": sum(found["near"] == name for found in false), "missed": missed[name],
        }
        for name, kind in expect.items()
    ]  # fmt: skip
    counted = [kind for kind in kinds if kind["expect"] != "sometimes"]
    total, found = sum(k["injected"] for k in counted), sum(k["caught"] for k in counted)
    return {
        "kinds": kinds,
        "files": [_judge_file(clean, dirty, name, *entry[:2]) for name, entry in spoilt.items()],
        "injected": total,
        "caught": found,
        "recall": found / total if total else 0.0,
        "sound_rows": sum(len(origin) for origin in origins.values()),
        "false_positives": len(false),
        "false_positive_samples": false[:5],
        "sound_rows_with_other_values": wrong_values,
    }


def _is_caught(
    kind: Kind, spots: list[tuple[str, int]], accepted: set[Any], rejected: Mapping[Any, Any]
) -> bool:
    landed = [spot for spot in spots if spot in accepted]
    if kind.expect == "deduplicated":
        return len(landed) == 1 and not any(spot in rejected for spot in spots)
    if kind.name.startswith("header in the midst"):  # the second of the two lines is the sound row itself
        return spots[0] in rejected and landed == spots[1:]
    return not landed and all(spot in rejected for spot in spots)


def _different_values(
    clean: pl.DataFrame, dirty: pl.DataFrame, origins: Mapping[str, Mapping[int, int]]
) -> int:
    """Sound rows whose silver values are not those of the lake without corruption."""
    places = pl.DataFrame(
        [(file, line, before) for file, origin in origins.items() for line, before in origin.items()],
        schema={"file": pl.String(), "line": pl.Int64(), "before": pl.Int64()},
        orient="row",
    )
    columns = [name for name in clean.columns if name not in (*_LINEAGE, "file", "line")]
    now = dirty.join(places, on=["file", "line"])
    pairs = now.join(clean, left_on=["file", "before"], right_on=["file", "line"], suffix="__clean")
    same = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}__clean")) for c in columns)
    return int(pairs.select((~same).sum()).item())


def _counted_by_checks(dirty: Lab, units: list[Unit]) -> dict[str, int]:
    """Rows that a warning rule or the reference check finds; right only when it finds exactly the injected ones."""
    found = {}
    pipeline = dirty.pipelines["flights"]
    silver = dirty.lake.table("silver", "flights").snapshot()
    for kind in KINDS:
        places = [(unit.file, unit.lines[0]) for unit in units if unit.kind is kind]
        if kind.expect == "warned":
            spots = pl.DataFrame(places, schema={"file": pl.String(), "line": pl.Int64()}, orient="row")
            rows = dirty.silver("flights").join(spots, on=["file", "line"])
            warned = {rule.name for rule in pipeline.contract.rules if rule.on_failure == "warn"}
            violations = pipeline.contract.count(rows.lazy()).violations
            found[kind.name] = sum(count for rule, count in violations.items() if rule in warned)
        elif kind.expect == "reference":
            check = next(check for check in reference_checks(pipeline) if check.name == "carrier_in_airlines")
            finding = check.look(Subject(dirty.lake, pipeline, silver))
            found[kind.name] = finding.count if finding.count == len(places) and not finding.passed else 0
    return found


def _judge_file(clean: Lab, dirty: Lab, name: str, kind: FileKind, suffix: str) -> dict[str, Any]:
    """What became of one spoilt file, against what had to."""
    columns = [c for c in clean.silver("flights").columns if c not in (*_LINEAGE, "file", "line")]
    whole = clean.silver("flights").filter(pl.col("file") == name).select(columns)
    landed = dirty.silver("flights").filter(pl.col("file").is_in([name, name + suffix]))
    known = landed.select(columns).join(whole, on=columns, how="semi", nulls_equal=True).height
    refused = dirty.quarantine("flights").filter(pl.col("file") == name + suffix).height
    noted = [file.path for file, stage, _ in Ledger(dirty.lake).newest("flights") if stage == "duplicate"]
    right = known == landed.height
    right &= {
        "whole": landed.height == whole.height and refused == 0,
        "refused": landed.height == 0 and refused > 0,
        "partly": refused > 0,
        "recognised": landed.height == whole.height and any(name in path for path in noted),
    }[kind.expect]
    return {
        "kind": kind.name,
        "expect": kind.expect,
        "file": name + suffix,
        "rows": whole.height,
        "landed": landed.height,
        "right": right,
    }


def main() -> None:
    """Run, print, and write what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=2013)
    parser.add_argument("--files", type=int, help="so many daily files of each table instead of the year")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/quality.md")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="quality-"))
    try:
        result = run(folder, seed=options.seed, files=options.files)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(as_markdown(result))
    for kind in result["kinds"]:
        if kind["missed"] and kind["expect"] != "sometimes":
            print("missed:", kind["kind"], kind["missed"])
    print(
        "false positives:",
        result["false_positive_samples"],
        "wrong files:",
        [f for f in result["files"] if not f["right"]],
    )
    print(f"{result['seconds']} s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    if options.write:
        write_page(result)
    if result["recall"] < 0.999 or result["false_positives"] or result["sound_rows_with_other_values"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
