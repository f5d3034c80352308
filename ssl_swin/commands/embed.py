"""`ssl-swin embed`: vectors of images as a file."""

import argparse

from ssl_swin.arguments import Positive
from ssl_swin.commands.inference_options import (
    IMAGES,
    add_crop_option,
    add_inference_options,
    computing_of,
    images_of,
    telling_what_is_kept,
    told_of_bad,
)
from ssl_swin.commands.parsing import path, text, value_of
from ssl_swin.commands.places import check_new


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "embed",
        help="write a vector of each image to a file",
        description="Puts images, labelled or not, through a backbone, and writes one vector of "
        "each to a file, in the order of the images. Cut short by whatever means, the same command "
        "goes on after the last 1024 images or so, to the same bytes.",
        epilog="The ending of OUT says what is written: .npy (names and labels in NAME.names.csv "
        "beside it), .parquet (columns name, label, embedding; pip install 'ssl_swin[hf]'), "
        ".safetensors (the tensor vectors; names and labels as JSON in its metadata), .csv (name, "
        "label, e0, e1, ...). Images that cannot be read are listed in OUT.bad.csv.",
        usage="%(prog)s [options] backbone images out",
    )
    parser.add_argument(
        "backbone", type=text, help="folder of a run, or whatever backbone= of the scripts takes"
    )
    parser.add_argument("images", type=text, help=IMAGES)
    parser.add_argument("out", type=path, help="file to write")
    add_vector_options(parser)
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32", help="of the file"
    )
    add_inference_options(parser)
    return parser


def add_vector_options(parser: argparse.ArgumentParser) -> None:
    """Describe which vectors of which view are wanted."""
    add_wanted_options(parser)
    add_crop_option(parser, "the backbone's")


def add_wanted_options(parser: argparse.ArgumentParser) -> None:
    """Describe which vectors are wanted."""
    parser.add_argument(
        "--stage",
        type=value_of(Positive),
        metavar="N",
        help="of the encoder, from 1 (default: the last)",
    )
    parser.add_argument(
        "--pooling", choices=("mean", "max"), default="mean", help="of the map to a vector"
    )
    parser.add_argument("--normalize", action="store_true", help="scale vectors to length 1")


def run(args: argparse.Namespace) -> None:
    """Computes, writes, and says what came of it."""
    check_new(args.out)
    import numpy as np

    from ssl_swin.inference.parts import Parts
    from ssl_swin.inference.run import batches, compute_file, facts_of
    from ssl_swin.inference.vector_files import (
        Shape,
        bad_beside,
        check_vector_file,
        names_beside,
        write_vectors,
    )
    from ssl_swin.inference.vectors import Wanted, vector_function
    from ssl_swin.launch.loading import load_backbone

    check_vector_file(args.out)
    backbone = load_backbone(args.backbone)
    encoder = backbone.encoder
    wanted = Wanted(args.stage, args.pooling, args.normalize)
    tap = wanted.tap(encoder)
    dataset = images_of(args).dataset
    computing = computing_of(args, dataset, backbone)
    facts = facts_of(
        encoder.model,
        dataset,
        computing,
        stage=tap.stage,
        pooling=tap.pooling,
        normalize=args.normalize,
        normalisation=[backbone.mean, backbone.std],
    )
    compute = vector_function(
        backbone, wanted, device=computing.device, precision=computing.precision
    )
    shape = Shape(np.dtype(args.dtype), dataset.classes)
    with telling_what_is_kept():
        number, num_bad = compute_file(
            Parts(args.out, num_images=len(dataset), batch_size=computing.batch_size),
            lambda first: batches(dataset, compute, computing, first),
            facts,
            lambda parts: write_vectors(parts, shape),
            max_bad=computing.max_bad,
            name="embedding",
            tell=print,
        )
    width = encoder.stage_dims[tap.stage - 1]
    bad = told_of_bad(num_bad, bad_beside(args.out))
    beside = f", names in {names_beside(args.out)}" if args.out.suffix.lower() == ".npy" else ""
    print(f"{args.out}: {number:,} x {width}, {args.dtype}{beside}{bad}")
