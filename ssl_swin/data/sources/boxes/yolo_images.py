"""Which images are of which split of a YOLO set: as data.yaml says, or by the names of folders."""

from pathlib import Path

from ssl_swin.data.sources.boxes.places import ImageFiles
from ssl_swin.data.sources.boxes.reading import BoxReading, split_of_path
from ssl_swin.data.sources.boxes.yolo_file import DataYaml
from ssl_swin.data.sources.left_out import is_known_image
from ssl_swin.errors import UserError


def listed_images(yaml: DataYaml, files: ImageFiles, reading: BoxReading) -> dict[str, list[Path]]:
    """Return the images of each split as data.yaml says.

    Args:
        yaml: The file.
        files: The images on disk.
        reading: How folders elsewhere are read.

    Raises:
        UserError: If something that it names is nowhere.
    """
    return {
        split: sorted(path for entry in entries for path in _images_at(entry, yaml, files, reading))
        for split, entries in yaml.splits.items()
    }


def _images_at(entry: str, yaml: DataYaml, files: ImageFiles, reading: BoxReading) -> list[Path]:
    place = _resolved(entry, yaml)
    if place.is_file():
        return _images_in_list(place)
    if not any(place in (folder, *folder.parents) for folder in files.by_folder):
        files = ImageFiles(place, reading.leave_out)
    return [
        folder / name
        for folder, names in files.by_folder.items()
        if place in (folder, *folder.parents)
        for name in names
    ]


def _resolved(entry: str, yaml: DataYaml) -> Path:
    """Return the place of an entry, also where a set lies elsewhere than when it was made.

    Raises:
        UserError: If it is nowhere.
    """
    here = yaml.path.absolute().parent
    bases = [here / yaml.base, yaml.base.absolute(), here] if yaml.base else [here]
    inner = Path(entry)
    while inner.parts[:1] == ("..",):  # as Roboflow writes, from a folder that is not there
        inner = Path(*inner.parts[1:])
    tried = [base / entry for base in bases] + [here / inner]
    for place in tried:
        if place.exists():
            return place.resolve() if ".." in place.parts else place
    raise UserError(f"{yaml.path} names {entry}, and there is no {tried[0]} or {tried[-1]}")


def _images_in_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from error
    return [path.parent / line.strip() for line in lines if is_known_image(line.strip())]


def images_by_folder(files: ImageFiles) -> dict[str, list[Path]]:
    """Return the images of folders that are named like splits, all others for training.

    Args:
        files: The images on disk.
    """
    found: dict[str, list[Path]] = {}
    for folder, names in files.by_folder.items():
        split = split_of_path(folder.relative_to(files.root)) or "train"
        found.setdefault(split, []).extend(folder / name for name in names)
    return dict(sorted(found.items(), key=lambda item: item[0] != "train"))
