"""`ssl-swin map`: vectors of images in two dimensions, as a figure."""

import argparse

from ssl_swin.commands.parsing import path
from ssl_swin.commands.places import check_picture


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "map",
        help="draw vectors of images in two dimensions",
        description="Draws a point of each image, by the two directions in which the vectors "
        "differ most (principal components), coloured by class where there are labels.",
        usage="%(prog)s vectors --out FILE.png",
    )
    parser.add_argument("vectors", type=path, help="what `ssl-swin embed` wrote")
    parser.add_argument("--out", type=path, required=True, metavar="FILE.png", help="the picture")
    return parser


def run(args: argparse.Namespace) -> None:
    """Reads, projects and draws."""
    check_picture("--out", args.out)
    from ssl_swin.files import atomic_path
    from ssl_swin.inference.search import principal_map
    from ssl_swin.inference.vector_files import read_vectors
    from ssl_swin.reporting.map_figure import draw_map

    found = read_vectors(args.vectors)
    projected = principal_map(found.vectors)
    first, second = (f"{100 * share:.1f} %" for share in projected.shares)
    axes = f"component 1: {first} of the variance", f"component 2: {second}"
    figure = draw_map(projected.points, found.labels, axes)
    with atomic_path(args.out) as temporary:
        figure.save(temporary, format="png")
    print(f"{args.out}: {len(found.names):,} images; {first} and {second} of the variance")
