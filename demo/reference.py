"""The reference pages of the documentation, made from the code: commands, settings, files and tables.

MkDocs calls `on_files`; the pages are in no folder.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from msgspec import inspect

# MkDocs imports this file by its path, without the project beside it.
sys.path.insert(0, str(Path(__file__).parents[1]))

from upnext.cli.group import commands
from upnext.cli.help import EXAMPLES, SECTIONS, commands_of
from upnext.events.source import Source
from upnext.experiences.definition import Experience, Slots
from upnext.journeys.definition import Broadcast, Journey
from upnext.journeys.policy import Policy
from upnext.kinds import Measure
from upnext.segments.definition import Meta
from upnext.settings import PROJECT, VARIABLES
from upnext.warehouse.columns import columns
from upnext.wording import describe

FILES: dict[str, Any] = {
    "campaigns/journeys/*.yml": Journey,
    "campaigns/broadcasts/*.yml": Broadcast,
    "campaigns/experiences/*.yml": Experience,
    "campaigns/slots.yml": Slots,
    "campaigns/policy.yml": Policy,
    "sources/*.yml": Source,
    "config.meta of a segment": Meta,
    "config.meta of a feature or a metric": Measure,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to the site."""
    for name, content in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=content))
    return files


def pages() -> dict[str, str]:
    """Return the pages by name, in Markdown."""
    return {
        "commands": "\n".join(_commands()),
        "settings": "\n".join(_settings()),
        "files": "\n".join(_files()),
        "tables": "\n".join(_tables()),
    }


def _commands() -> Iterator[str]:
    yield "# Commands\n\n`upnext --help` lists them, and `upnext COMMAND --help` shows one.\n"
    found = dict(commands_of(commands))
    for title, names in SECTIONS.items():
        yield f"## {title}\n"
        for path, command in found.items():
            if path.split()[0] in names:
                yield f"### upnext {path}\n\n{command.help}\n"
                yield "```console\n" + "\n".join(f"$ {example}" for example in EXAMPLES[path]) + "\n```\n"
                yield from _options(command)


def _options(command: click.Command) -> Iterator[str]:
    options = [one for one in command.params if isinstance(one, click.Option)]
    if options:
        yield "| option | meaning |\n|---|---|"
        for option in options:
            kind = "" if option.is_flag else f" {option.make_metavar(click.Context(command)).upper()}"
            yield f"| `{', '.join(option.opts)}{kind}` | {_cell(option.help or '')} |"
        yield ""


def _settings() -> Iterator[str]:
    yield "# Settings\n\nSettings are environment variables; an empty one counts as unset. `upnext doctor` reads all.\n"
    yield "| variable | meaning |\n|---|---|"
    for name, text in VARIABLES.items():
        yield f"| `{name}` | {_cell(text)} |"


def _files() -> Iterator[str]:
    yield "# Files\n\nWhat each file may hold. `upnext check` names a mistake with its file and its line.\n"
    for where, kind in FILES.items():
        yield f"## {where}\n\n{_first(kind)}\n"
        seen: set[str] = set()
        yield from _keys(inspect.type_info(kind), seen)


def _keys(declared: Any, seen: set[str]) -> Iterator[str]:
    """Yield a table of a struct's keys, and then those of the structs below it, each once."""
    below: list[inspect.StructType] = []
    yield "| key | what it is | default |\n|---|---|---|"
    for field in declared.fields:
        default = "required" if field.required else _default(field)
        yield f"| `{field.encode_name}` | {_cell(describe(field.type))} | {_cell(default)} |"
        below += _structs(field.type)
    yield ""
    for struct in below:
        name = struct.cls.__name__
        if name not in seen:
            seen.add(name)
            tag = f" (`{struct.tag_field}: {struct.tag}`)" if struct.tag is not None else ""
            yield f"### {name}{tag}\n\n{_first(struct.cls)}\n"
            yield from _keys(struct, seen)


def _structs(declared: Any) -> list[inspect.StructType]:
    match declared:
        case inspect.StructType():
            return [declared]
        case inspect.UnionType():
            return [one for kind in declared.types for one in _structs(kind)]
        case inspect.ListType() | inspect.VarTupleType():
            return _structs(declared.item_type)
        case inspect.DictType():
            return _structs(declared.value_type)
        case inspect.Metadata():
            return _structs(declared.type)
        case _:
            return []


def _default(field: inspect.Field) -> str:
    if field.default is not msgspec.NODEFAULT:
        return "none" if field.default is None else f"`{msgspec.json.encode(field.default).decode()}`"
    factory = field.default_factory
    return "none" if factory in (list, dict, msgspec.NODEFAULT) else f"`{msgspec.json.encode(factory()).decode()}`"


def _first(kind: Any) -> str:
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split())


def _tables() -> Iterator[str]:
    yield "# Tables\n\nThe tables of the warehouse, all times in UTC. Each segment is a view beside them.\n"
    for path in sorted((PROJECT / "dbt_project").glob("*/*/*.yml")):
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
        for model in described.get("models", []) if path.parent.name != "segments" else []:
            schema = path.parent.name.replace("membership", "segments")
            yield f"## {schema}.{model['name']}\n\n{_cell(model.get('description', ''))}\n"
            yield "| column | what it is |\n|---|---|"
            for column in model.get("columns", []):
                yield f"| `{column['name']}` | {_cell(column.get('description', ''))} |"
            yield ""
    for table, found in sorted(columns().items()):
        yield f"## {table}\n\n| column | type |\n|---|---|"
        yield from (f"| `{name}` | {kind} |" for name, kind in found.items())
        yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
