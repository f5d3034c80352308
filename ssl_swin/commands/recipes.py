"""`ssl-swin recipes`: the experiments of the package and of the user, as their `recipe:` says.

An experiment may hold a mapping `recipe` beside its settings: what it trains (`title`), and the
facts of `FACTS`. A run takes no notice of it.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from ssl_swin.commands.parsing import nearest, path
from ssl_swin.errors import UserError

PACKAGE = "ssl_swin.conf"
USER_FOLDER = Path("conf")  # in the working directory, as jobs find it
FACTS = ("source", "expected", "hardware", "batch", "command", "reproduced", "note")
UNSTATED = "not stated"


@dataclass(frozen=True)
class Recipe:
    """An experiment, without its settings."""

    name: str
    title: str
    facts: dict[str, str]  # those of FACTS that it states

    @property
    def job(self) -> str:
        """The job that runs it, which its name starts with."""
        return self.name.partition("_")[0]


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "recipes",
        help="list the recipes, which are experiments, or tell all about one",
        description="Lists every recipe: its job, its name, the accuracy to expect (ImageNet-1k "
        "top-1 unless it says otherwise), and whether we have reproduced it. With a name: where "
        "it comes from, what it needs, and the command. Your own experiments are found in "
        "conf/experiment/, or in the folder of --config-dir.",
    )
    parser.add_argument("name", nargs="?", help="of one recipe")
    parser.add_argument(
        "--config-dir", "-cd", type=path, help="folder of your configurations (default: conf)"
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Prints one line a recipe, or one recipe."""
    if args.config_dir is not None and not args.config_dir.is_dir():
        raise UserError(f"--config-dir: there is no folder {args.config_dir}")
    recipes = read_recipes(args.config_dir or USER_FOLDER)
    lines = table(recipes) if args.name is None else page(find_recipe(recipes, args.name))
    print("\n".join(lines))


def read_recipes(user_folder: Path = USER_FOLDER) -> list[Recipe]:
    """Return the recipes of the package and of the user, pretraining first.

    Args:
        user_folder: Folder that may hold a folder `experiment`; a name of the package comes first.
    """
    recipes = {}
    for folder in (user_folder / "experiment", resources.files(PACKAGE) / "experiment"):
        for file in folder.iterdir() if folder.is_dir() else ():
            if file.name.endswith(".yaml"):
                recipe = read_recipe(file)
                recipes[recipe.name] = recipe
    return sorted(sorted(recipes.values(), key=_name), key=_job, reverse=True)


def find_recipe(recipes: list[Recipe], name: str) -> Recipe:
    """Return the recipe of a name.

    Raises:
        UserError: If there is none of this name, with the nearest names.
    """
    by_name = {recipe.name: recipe for recipe in recipes}
    if name not in by_name:
        near = nearest(name, by_name) or ";"
        raise UserError(f"there is no recipe {name}{near} `ssl-swin recipes` lists them all")
    return by_name[name]


def read_recipe(file: Traversable) -> Recipe:
    """Return the recipe of an experiment's file.

    Raises:
        UserError: If the file is no YAML, or states something that no recipe states.
    """
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is no YAML: {_problem(error)}") from error
    stated = (content.get("recipe") if isinstance(content, dict) else None) or {}
    if not isinstance(stated, dict):
        raise UserError(f"{file}: recipe must be a mapping of its facts, got {stated!r}")
    facts = {str(key): str(value).rstrip("\n") for key, value in stated.items()}
    unknown = facts.keys() - {"title", *FACTS}
    if unknown:
        raise UserError(
            f"{file}: a recipe states title, {', '.join(FACTS)}, not {', '.join(sorted(unknown))}"
        )
    return Recipe(file.name.removesuffix(".yaml"), facts.pop("title", UNSTATED), facts)


def _problem(error: Exception) -> str:
    """Return in one line what is wrong with a file of YAML."""
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f"line {mark.line + 1}: "
    return place + " ".join(str(getattr(error, "problem", None) or error).split())


def table(recipes: list[Recipe]) -> Iterator[str]:
    """Yield one line a recipe: job, name, expected number, reproduced or not."""
    rows = [
        (recipe.job, recipe.name, *(_first_line(recipe, key) for key in ("expected", "reproduced")))
        for recipe in recipes
    ]
    rows.insert(0, ("job", "recipe", "expected", "reproduced"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def page(recipe: Recipe) -> Iterator[str]:
    """Yield the lines about a recipe, and last its command, ready to be copied."""
    yield f"{recipe.name}: {recipe.title}"
    stated = [key for key in FACTS if key in recipe.facts and key != "command"]
    for key in stated:
        yield f"{key + ':':<12}" + recipe.facts[key].replace("\n", "\n" + " " * 12)
    if "command" in recipe.facts:
        yield ""
        yield recipe.facts["command"].replace("\n", "\n    ")


def _first_line(recipe: Recipe, key: str) -> str:
    return recipe.facts.get(key, UNSTATED).partition("\n")[0]


def _name(recipe: Recipe) -> str:
    return recipe.name


def _job(recipe: Recipe) -> str:
    return recipe.job
