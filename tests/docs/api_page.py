"""Write docs/API.md, the reference of the public face, from the docstrings.

python tests/docs/api_page.py
"""

from collections.abc import Iterator
from pathlib import Path

import griffe

import ssl_swin

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "API.md"
HEAD = """# API reference

What `import ssl_swin` offers, made from the docstrings by `python tests/docs/api_page.py`; a test
keeps it in step. How the parts are used together: [Python](PYTHON.md).
"""
# Packages in the order of their use; the names of a package that is not here come last.
TITLES = {
    "jobs": "Jobs",
    "weights": "Weights",
    "launch": "Loading and sweeps",
    "encoders": "Encoders",
    "objectives": "Objectives",
    "tasks": "Tasks on labels",
    "data": "Data",
    "optim": "Schedules",
    "training": "Training",
    "errors": "Errors",
}
SECTIONS = {
    "parameters": "Parameters",
    "attributes": "Attributes",
    "returns": "Returns",
    "yields": "Yields",
    "raises": "Raises",
}
NOT_ARGUMENTS = ("self", "cls")
LOOP_CALLS = ("setup", "teardown", "state_dict", "load_state_dict")  # and on_...: Lightning's hooks


def page() -> str:
    """The whole page."""
    package = griffe.load("ssl_swin", search_paths=[ROOT], docstring_parser="google")
    parts = [HEAD]
    for title, names in _grouped(package).items():
        parts.append(f"## {title}\n")
        parts += [_entry(_at_home(package, name)) for name in names]
    return "\n".join(parts)


def _grouped(package: griffe.Module) -> dict[str, list[str]]:
    """The public names by the package that is their home, in alphabetical order."""
    groups: dict[str, list[str]] = {title: [] for title in TITLES.values()}
    for name in sorted(ssl_swin.__all__):
        home = _at_home(package, name).path.split(".")[1]
        groups.setdefault(TITLES.get(home, home.capitalize()), []).append(name)
    return {title: names for title, names in groups.items() if names}


def _at_home(package: griffe.Module, name: str) -> griffe.Object:
    found = package[name]
    return found.final_target if isinstance(found, griffe.Alias) else found


def _entry(found: griffe.Object) -> str:
    lines = [f"### {found.name}\n", *_signature(found), *_documented(found)]
    if isinstance(found, griffe.Class):
        for method in _public_methods(found):
            lines += [f"#### {found.name}.{method.name}\n", *_signature(method)]
            lines += _documented(method)
    return "\n".join(lines)


def _public_methods(found: griffe.Class) -> Iterator[griffe.Function]:
    """Methods of its own that say what they do; those that refer to a contract say it there."""
    for method in found.members.values():
        if not isinstance(method, griffe.Function) or _of_the_loop(method.name):
            continue
        if method.docstring and not method.docstring.value.startswith("See "):
            yield method


def _of_the_loop(name: str) -> bool:
    return (name.startswith(("_", "on_")) and name != "on_pixels") or name in LOOP_CALLS


def _signature(found: griffe.Object) -> Iterator[str]:
    if isinstance(found, griffe.Function):
        function, returns = found, found.returns
    else:
        function, returns = found.members.get("__init__"), None
        if not isinstance(function, griffe.Function):
            return
    if "property" in function.labels:
        return
    arguments = [_argument(each) for each in _parameters(function)]
    ending = f" -> {returns}" if returns else ""
    line = f"{found.name}({', '.join(arguments)}){ending}"
    if len(line) > 88:
        line = "\n".join([f"{found.name}(", *(f"    {each}," for each in arguments), f"){ending}"])
    yield f"```python\n{line}\n```\n"


def _parameters(function: griffe.Function) -> Iterator[griffe.Parameter | str]:
    starred = False
    for each in function.parameters:
        if each.name in NOT_ARGUMENTS:
            continue
        if each.kind is griffe.ParameterKind.var_positional:
            starred = True
        if each.kind is griffe.ParameterKind.keyword_only and not starred:
            starred = True
            yield "*"
        yield each


def _argument(each: griffe.Parameter | str) -> str:
    if isinstance(each, str):
        return each
    stars = {
        griffe.ParameterKind.var_positional: "*",
        griffe.ParameterKind.var_keyword: "**",
    }.get(each.kind, "")
    text = f"{stars}{each.name}"
    if each.annotation is not None:
        text += f": {each.annotation}"
    if each.default is not None and not stars:
        text += f" = {each.default}" if each.annotation is not None else f"={each.default}"
    return text


def _documented(found: griffe.Object) -> Iterator[str]:
    for source in (found, found.members.get("__init__")):
        if source is None or source.docstring is None:
            continue
        for section in source.docstring.parse("google"):
            yield from _section(section)


def _section(section: griffe.DocstringSection) -> Iterator[str]:
    kind = section.kind.value
    if kind == "text":
        yield f"{section.value}\n"
    elif kind in SECTIONS:
        yield f"**{SECTIONS[kind]}**\n"
        for item in section.value:
            described = " ".join(item.description.split())
            yield f"- {_named(item, kind)}{described}"
        yield ""
    elif kind == "examples":
        for _, text in section.value:
            yield f"```python\n{text}\n```\n"
    else:
        yield f"**{section.title or kind.capitalize()}**: {section.value.contents}\n"


def _named(item: griffe.DocstringElement, kind: str) -> str:
    if kind == "raises":
        return f"`{item.annotation}`: "
    name = getattr(item, "name", "")
    return f"`{name}`: " if name else ""


if __name__ == "__main__":
    PAGE.write_text(page())
