"""Reads and checks the declared segments; errors name the file, the line and the nearest match."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from upnext.declarations import MAX_NAME, NAME, Problem, check, load, read_text, unknown
from upnext.errors import UpnextError, nearest
from upnext.reserved import RESERVED_WORDS
from upnext.segments.definition import SegmentsFile, find_cycle, find_mistakes, references
from upnext.segments.template import read
from upnext.warehouse.relations import taken_names


def segment_files(models: Path) -> dict[str, Path]:
    """Return the declared segments, one file each. Raises `UpnextError` for two files of one name."""
    files: dict[str, Path] = {}
    for file in sorted((models / "segments").rglob("*.sql")):
        if file.stem in files:
            raise UpnextError(f"{file}: another segment is called '{file.stem}': {files[file.stem]}")
        files[file.stem] = file
    return files


def find_segment(files: Mapping[str, Path], path_or_name: str) -> Path:
    """Return the file of a segment, by its name or by its path. Raises `UpnextError` with the nearest match."""
    if path_or_name in files:
        return files[path_or_name]
    path = Path(path_or_name)
    if path.suffix == ".sql" and path.is_file():
        return path.resolve()
    raise UpnextError(f"no segment and no .sql file is called '{path_or_name}'{nearest(path_or_name, files)}")


def _descriptions(files: Mapping[str, Path]) -> list[Path]:
    """Return the dbt files beside segments. What lies beside a draft elsewhere is about something else."""
    declared = [file for file in files.values() if any(folder.name == "segments" for folder in file.parents)]
    return sorted({path for file in declared for path in file.parent.glob("*.yml")})


def descriptions(files: Mapping[str, Path]) -> dict[str, tuple[str, str | None]]:
    """Return what is said of each segment beside its file: the description, and the owner; none where nothing is."""
    said = {
        model.name: (" ".join(model.description.split()), model.config.meta.owner if model.config.meta else None)
        for description in _descriptions(files)
        for model in load(description, SegmentsFile).models
    }
    return {name: said.get(name, ("", None)) for name in files}


def anonymous_segments(files: Mapping[str, Path]) -> set[str]:
    """Return the segments whose meta includes visitors, in their own file or in a description beside it."""
    described = {
        model.name
        for description in _descriptions(files)
        for model in load(description, SegmentsFile).models
        if model.config.meta is not None and model.config.meta.include_anonymous
    }
    texts = {name: read_text(file) for name, file in files.items()}
    return {
        name for name, text in texts.items() if name in described or (read(text).meta or {}).get("include_anonymous")
    }


def check_segments(
    files: Mapping[str, Path],
    *,
    known: Collection[str],
    columns: Mapping[str, Collection[str]],
    never_negative: Collection[str],
    lists: Collection[str],
    folders: Collection[str],
    others: Collection[str],
) -> None:
    """Raise `UpnextError` for the first segment with a mistake, with file and line.

    `known` are the tables that a segment may read beside other segments, `columns` those of the tables of features,
    `never_negative` the features that count, `lists` the files of ids, `folders` those of models, whose names dbt would
    take for all in them, `others` the models that are no segments.
    """
    for name, file in files.items():
        if len(name) > MAX_NAME:
            raise UpnextError(f"{file}: the name of a segment has at most {MAX_NAME} characters")
        if not re.fullmatch(NAME, name) or name in RESERVED_WORDS:
            raise UpnextError(f"{file}: '{name}' is a word of SQL, or no name; use a-z, 0-9 and _, and another word")
        if name in taken_names("segments"):
            raise UpnextError(f"{file}: '{name}' is the name of a table of Upnext's own; choose another")
        if name in others:
            raise UpnextError(f"{file}: '{name}' is the name of another model; choose another")
        if name in folders:
            raise UpnextError(f"{file}: '{name}' is the name of a folder of models; choose another")
    texts = {name: read_text(file) for name, file in files.items()}
    for name, text in texts.items():
        mistakes = find_mistakes(
            text, known={*known, *files}, columns=columns, counts=set(never_negative), lists=lists
        )  # fmt: skip
        check(files[name], (Problem(line, f"segment '{name}' {mistake}") for line, mistake in mistakes))
    for description in _descriptions(files):
        models = load(description, SegmentsFile).models
        unknown_ones = (
            (nth, problem)
            for nth, model in enumerate(models)
            if model.name not in known
            for problem in unknown([], "segment", [model.name], files)
        )
        names = [model.name for model in models]
        twice = (nth for nth, name in enumerate(names) if name in names[:nth])
        check(
            description,
            (Problem(["models", nth, "name"], f"segment '{names[nth]}' stands here twice") for nth in twice),
        )
        check(description, (Problem(["models", nth, "name"], problem.text) for nth, problem in unknown_ones))
    cycle = find_cycle({name: [other for other in references(text) if other in files] for name, text in texts.items()})
    if cycle is not None:
        raise UpnextError(f"{files[cycle[0]]}: segments are built on each other in a circle: {' -> '.join(cycle)}")
