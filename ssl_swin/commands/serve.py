"""`ssl-swin serve`: a network behind HTTP."""

import argparse
import importlib.util
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Le

from ssl_swin.arguments import MOST_WORKERS, Above0, Neighbours, NonNegative, Positive
from ssl_swin.commands.embed import add_wanted_options
from ssl_swin.commands.inference_options import (
    add_answer_options,
    add_computing_options,
    add_crop_option,
    add_image_options,
)
from ssl_swin.commands.parsing import path, text, value_of
from ssl_swin.commands.pixel_options import add_limit_options, pixel_format
from ssl_swin.errors import UserError
from ssl_swin.plurals import counted
from ssl_swin.serving.limits import Limits

if TYPE_CHECKING:
    from ssl_swin.inference.predictors.base import Options
    from ssl_swin.inference.predictors.classification import ClassPredictor
    from ssl_swin.serving.questions import Question, Served

NEEDS = ("starlette", "uvicorn", "python_multipart")
Port = Annotated[int, Ge(0), Le(65535)]
Threads = Annotated[int, Ge(1), Le(MOST_WORKERS)]
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MOST_PIXELS, MOST_BYTES = 50_000_000, 500_000_000  # of a decoded image, of anybody's


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "serve",
        help="answer requests for classes and vectors over HTTP",
        description="Answers POST /predict (classes, of a classifier), POST /embed (vectors), "
        "POST /reconstruct (of a masked pretraining) and POST /neighbours (with --vectors) until "
        "it is stopped. Images are raw bodies, forms or JSON; those that arrive together go "
        "through the network together. GET / is a page to try it, GET /health says whether it is "
        "ready, GET /metrics what it has done. There is no password: only this machine is listened "
        "to unless --host says more. Needs pip install 'ssl_swin[serve]'.",
        usage="%(prog)s [options] network",
    )
    parser.add_argument(
        "network", type=text, help="run, its classifier or backbone, or whatever backbone= takes"
    )
    parser.add_argument(
        "--host", type=text, default="127.0.0.1", help="to listen on (default: this machine's own)"
    )
    parser.add_argument(
        "--port",
        type=value_of(Port),
        default=8000,
        metavar="N",
        help="to listen on; 0 is any free one (default: %(default)s)",
    )
    _add_limits(parser)
    parser.add_argument(
        "--workers",
        type=value_of(Threads),
        default=2,
        metavar="N",
        help="threads that decode images (default: %(default)s)",
    )
    add_computing_options(parser)
    add_answer_options(parser)
    add_wanted_options(parser)
    add_crop_option(parser, "the network's")
    _add_neighbours(parser)
    add_image_options(parser)
    add_limit_options(parser, most_pixels=MOST_PIXELS, most_bytes=MOST_BYTES)
    return parser


def _add_neighbours(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vectors",
        type=path,
        metavar="FILE",
        help="what `ssl-swin embed` wrote with this network: POST /neighbours tells the nearest",
    )
    parser.add_argument(
        "--images",
        type=text,
        metavar="PLACE",
        help="the images that --vectors is of; anybody who may ask gets to see them",
    )
    parser.add_argument("--split", type=text, metavar="NAME", help="the only split of --images")
    parser.add_argument(
        "--neighbours",
        type=value_of(Neighbours),
        default=8,
        metavar="N",
        help="how many are told (default: %(default)s)",
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    defaults = {field.name: field.default for field in fields(Limits)}
    for name, kind, told in (
        ("batch_size", Positive, "most images of a batch"),
        ("max_wait_ms", NonNegative, "longest wait of an image for others of its batch"),
        ("max_image_mb", Above0, "largest image file"),
        ("max_request_mb", Above0, "largest request"),
        ("max_images", Positive, "most images of a request"),
        ("queue", Positive, "most images in work; requests beyond are answered 503"),
        ("timeout_s", Above0, "longest from the head of a request to its answer"),
    ):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=value_of(kind),
            default=defaults[name],
            metavar="N",
            help=f"{told} (default: {defaults[name]:g})",
        )


def run(args: argparse.Namespace) -> int:
    """Serves until a signal stops it; returns 128 + the number of the signal."""
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"serve needs {', '.join(missing)}: pip install 'ssl_swin[serve]'")
    if (args.vectors is None) != (args.images is None):
        raise UserError("--vectors and --images go together: the one is of the other")
    from ssl_swin.launch.threads import sleep_while_waiting

    sleep_while_waiting()  # before torch is loaded
    from ssl_swin.serving.server import bound_socket, reason_of, serve, url_of
    from ssl_swin.serving.service import Service

    limits = Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)})
    with bound_socket(args.host, args.port) as listening:
        is_private = args.images is not None and args.host in LOOPBACK
        service = Service(
            _served(args),
            limits,
            num_threads=args.workers,
            hosts=LOOPBACK if is_private else None,
        )
        print(f"listening on {url_of(listening)}; Ctrl-C stops it", flush=True)
        status = serve(service, listening, timeout_s=limits.timeout_s)
    number = counted(sum(service.metrics.requests.values()), "request")
    print(f"ssl-swin: stopped by {reason_of(status)} after {number}", file=sys.stderr)
    return status


def _served(args: argparse.Namespace) -> "Served":
    """Load the network and say what it can be asked.

    Raises:
        UserError: If there is none, or no such device.
    """
    from ssl_swin.inference.vectors import View, Wanted
    from ssl_swin.launch.artifacts import local_backbone
    from ssl_swin.launch.build import usable_device
    from ssl_swin.launch.pretrained import masked_model_of
    from ssl_swin.launch.resolvers import auto_device
    from ssl_swin.serving.pictures import reconstruction_question
    from ssl_swin.serving.questions import Served, class_question, vector_question
    from ssl_swin.weights.backbone import Backbone, load_backbone
    from ssl_swin.weights.kept_head import read_head
    from ssl_swin.weights.sources import default_cache

    device = usable_device(auto_device() if args.device == "auto" else args.device)
    _check_answers(Path(args.network))
    folder = local_backbone(args.network, default_cache())
    questions: list[Question] = []
    if read_head(folder) is None:
        backbone = load_backbone(folder)
        title = backbone.encoder.title
        if model := masked_model_of(Path(args.network), backbone):
            title += f" pretrained by {model.title}"
            mean, std = backbone.mean, backbone.std
            questions += [reconstruction_question(model, mean, std, device, args.precision)]
    else:
        predictor = _classifier(folder)
        questions = [class_question(predictor, _options(args), device, args.precision)]
        backbone = Backbone(
            predictor.encoder,
            tuple(predictor.mean),
            tuple(predictor.std),
            crop_ratio=predictor.crop_ratio,
        )
        title = f"{backbone.encoder.title} of {counted(len(predictor.classes), 'class')}"
    wanted = Wanted(args.stage, args.pooling, args.normalize)
    questions.append(vector_question(backbone, wanted, device, args.precision))
    encoder = backbone.encoder
    pixels = pixel_format(args, channels=encoder.in_chans, dtype=args.pixel_dtype)
    served = Served(
        title,
        View(pixels, args.crop_ratio or backbone.crop_ratio),
        encoder.img_size_px,
        {question.name: question for question in questions},
    )
    return _with_neighbours(args, served) if args.vectors else served


def _with_neighbours(args: argparse.Namespace, served: "Served") -> "Served":
    """Add the question for nearest images.

    Raises:
        UserError: If the vectors are not of the images, or not of the network.
    """
    from ssl_swin.data.sources.layout import Reading
    from ssl_swin.inference.images import open_images
    from ssl_swin.inference.vector_files import read_vectors
    from ssl_swin.launch.data_settings import remote_cache
    from ssl_swin.serving.neighbours import neighbour_question

    vectors = read_vectors(args.vectors)
    images = open_images(args.images, reading=Reading(), split=args.split, cache=remote_cache())
    question = neighbour_question(served, vectors, images.dataset, num=args.neighbours)
    return replace(served, questions={**served.questions, question.name: question})


def _check_answers(place: Path) -> None:
    """Refuse a network whose answers are neither classes nor vectors.

    Raises:
        UserError: If a run or folder holds one.
    """
    from ssl_swin.inference.predictors.base import task_folder

    if folder := task_folder(place.expanduser()):
        raise UserError(
            f"{folder} is no classifier: serve gives classes of images, or vectors. `ssl-swin "
            f"predict` takes it; for vectors, give the backbone beside it, {folder.parent}/backbone"
        )


def _classifier(folder: Path) -> "ClassPredictor":
    from ssl_swin.inference.predictors.base import load_predictor
    from ssl_swin.inference.predictors.classification import ClassPredictor

    predictor = load_predictor(folder)
    if not isinstance(predictor, ClassPredictor):
        raise UserError(f"{folder} is no classifier: serve answers with classes or vectors alone")
    for note in predictor.notes:
        print(f"note: {note}")
    return predictor


def _options(args: argparse.Namespace) -> "Options":
    from ssl_swin.inference.predictors.base import Options

    return Options(args.top, args.scores)
