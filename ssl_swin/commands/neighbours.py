"""`ssl-swin neighbours`: the images that are most like some others, as a figure."""

import argparse
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ssl_swin.arguments import Neighbours
from ssl_swin.commands.embed import add_vector_options
from ssl_swin.commands.inference_options import (
    IMAGES,
    add_inference_options,
    computing_of,
    images_of,
)
from ssl_swin.commands.parsing import path as path_of
from ssl_swin.commands.parsing import text, value_of
from ssl_swin.commands.places import check_picture
from ssl_swin.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ssl_swin.data.dataset import ImageDataset
    from ssl_swin.data.encoded import EncodedSample
    from ssl_swin.data.images.pixel_format import PixelFormat
    from ssl_swin.inference.run import Computing
    from ssl_swin.inference.vector_files import Vectors
    from ssl_swin.inference.vectors import Compute
    from ssl_swin.reporting.neighbours_figure import Answer


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "neighbours",
        help="draw the images that are most like others",
        description="Finds the images whose vectors have the largest cosine to that of a query, "
        "and draws a row for each query.",
        epilog="A query is the name of one of the images, as in the file of vectors; or another "
        "image file, which needs the backbone that made the vectors, and its options.",
        usage="%(prog)s [options] vectors images --query QUERY ... --out FILE.png",
    )
    parser.add_argument(
        "vectors",
        type=text,
        help="what `ssl-swin embed` wrote of the images; or a backbone, to compute it now",
    )
    parser.add_argument("images", type=text, help=f"as for embed: {IMAGES}")
    parser.add_argument("--query", type=text, nargs="+", required=True, help="names or files")
    parser.add_argument(
        "--out", type=path_of, required=True, metavar="FILE.png", help="the picture"
    )
    parser.add_argument(
        "--top", type=value_of(Neighbours), default=7, metavar="N", help="how many (default: 7)"
    )
    parser.add_argument(
        "--centre",
        action="store_true",
        help="take the mean of the images' vectors away first: what all share tells none apart",
    )
    parser.add_argument("--backbone", type=text, help="that made the vectors, for other images")
    add_vector_options(parser)
    add_inference_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Searches, draws, and prints what was found."""
    check_picture("--out", args.out)
    from ssl_swin.files import atomic_path
    from ssl_swin.inference.search import nearest
    from ssl_swin.reporting.neighbours_figure import draw_neighbours

    search = _Search(args)
    rows = [search.row_of(query) for query in args.query]
    queries = search.vectors_of(args.query, rows)
    vectors = search.vectors.vectors
    if args.centre:
        mean = vectors.mean(axis=0)
        vectors, queries = vectors - mean, queries - mean
    found = nearest(vectors, queries, args.top, rows)
    answers = [
        search.answer(query, row, each.rows, each.cosines)
        for query, row, each in zip(args.query, rows, found, strict=True)
    ]
    figure = draw_neighbours(answers)
    with atomic_path(args.out) as temporary:
        figure.save(temporary, format="png")
    for answer in answers:
        told = ", ".join(f"{shown.name} {cosine:.3f}" for shown, cosine in answer.nearest)
        print(f"{answer.query.name}: {told}")
    print(f"wrote {args.out}")


class _Search:
    """Vectors, the images that they are of, and the network if one is needed."""

    def __init__(self, args: argparse.Namespace) -> None:
        from ssl_swin.commands.pixel_options import pixel_format
        from ssl_swin.inference.vector_files import is_vector_file, read_vectors

        self.args = args
        is_file = is_vector_file(Path(args.vectors))
        self.reference = args.backbone if is_file else args.vectors
        if not is_file and args.backbone is not None:
            raise UserError(f"--backbone is for a file of vectors, and {args.vectors} is none")
        self.pixels: PixelFormat = pixel_format(args, dtype=args.pixel_dtype)
        read = read_vectors(Path(args.vectors)) if is_file else None
        self.dataset: ImageDataset = images_of(args).dataset
        self.vectors: Vectors = self._computed() if read is None else read
        self.names = {name: row for row, name in enumerate(self.vectors.names)}

    def row_of(self, query: str) -> int | None:
        """Return the row of a query; None if it is another file.

        Raises:
            UserError: If it is neither.
        """
        if query in self.names:
            return self.names[query]
        file = Path(query)
        try:
            below = str(file.resolve().relative_to(Path(self.args.images).resolve()))
        except (ValueError, OSError):
            below = ""
        if below in self.names:
            return self.names[below]
        if file.is_file():
            if self.reference is None:
                raise UserError(
                    f"--query {query} is none of the images: give the backbone that made the "
                    "vectors, --backbone BACKBONE"
                )
            return None
        near = get_close_matches(query, self.vectors.names[:100_000], n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        raise UserError(f"--query {query} is neither one of the images nor a file{hint}")

    def vectors_of(self, queries: list[str], rows: list[int | None]) -> "NDArray[np.float32]":
        """Return the vectors of queries (Q, D), computed where they are not in the file."""
        import numpy as np

        others = [query for query, row in zip(queries, rows, strict=True) if row is None]
        computed = iter(self._of_samples([self._sample(query, None) for query in others]))
        return np.stack(
            [next(computed) if row is None else self.vectors.vectors[row] for row in rows]
        )

    def answer(
        self, query: str, row: int | None, rows: list[int], cosines: list[float]
    ) -> "Answer":
        """Return what is drawn of a query."""
        from ssl_swin.inference.pictures import picture
        from ssl_swin.reporting.neighbours_figure import Answer, Shown

        names, labels = self.vectors.names, self.vectors.labels

        def shown(name: str, label: str, at: int | None) -> Shown:
            return Shown(picture(self._sample(name, at), self.pixels), name, label)

        asked = shown(query, "", None) if row is None else shown(names[row], labels[row], row)
        near = [shown(names[at], labels[at], at) for at in rows]
        return Answer(asked, list(zip(near, cosines, strict=True)))

    def _sample(self, name: str, row: int | None) -> "EncodedSample":
        from ssl_swin.data.encoded import EncodedSample
        from ssl_swin.data.file_types import extension_of
        from ssl_swin.inference.pictures import sample_of_row

        if row is not None:
            return sample_of_row(self.dataset, row, name, len(self.vectors.names))
        return EncodedSample.of_image(Path(name).read_bytes(), extension_of(name), None, name)

    def _network(self) -> "tuple[Compute, Computing]":
        from ssl_swin.inference.vectors import Wanted, vector_function
        from ssl_swin.launch.loading import load_backbone

        args = self.args
        backbone = load_backbone(self.reference)
        computing = computing_of(args, self.dataset, backbone)
        wanted = Wanted(args.stage, args.pooling)
        compute = vector_function(
            backbone, wanted, device=computing.device, precision=computing.precision
        )
        return compute, computing

    def _computed(self) -> "Vectors":
        from ssl_swin.inference.run import vectors_in_memory

        compute, computing = self._network()
        return vectors_in_memory(self.dataset, compute, computing)

    def _of_samples(self, samples: "list[EncodedSample]") -> "NDArray[np.float32]":
        """Compute vectors, after the first one of the file as a proof that they are alike.

        Raises:
            UserError: If they are not.
        """
        import numpy as np

        from ssl_swin.inference.run import vectors_of_samples
        from ssl_swin.inference.search import LEAST_LIKE

        if not samples:
            return np.empty((0, 0), np.float32)
        first = self._sample(self.vectors.names[0], 0)
        vectors = vectors_of_samples([first, *samples], *self._network())
        kept = self.vectors.vectors[0]
        is_alike = len(kept) == vectors.shape[1] and (
            vectors[0] @ kept >= LEAST_LIKE * np.linalg.norm(vectors[0]) * np.linalg.norm(kept)
        )
        if not is_alike:
            raise UserError(
                f"{self.reference} does not make the vectors of {self.args.vectors}: give the "
                "backbone, --stage, --pooling and --crop-ratio that they were made with"
            )
        return vectors[1:]
