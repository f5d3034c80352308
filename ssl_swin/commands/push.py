"""`ssl-swin push`: a backbone on the Hugging Face hub."""

import argparse

from ssl_swin.commands.parsing import text


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
) -> argparse.ArgumentParser:
    """Describes the command."""
    parser = commands.add_parser(
        "push",
        help="upload a backbone to the Hugging Face hub",
        description="Uploads config.json, model.safetensors and the model card in one commit, and "
        "creates the repository if there is none. Log in first with `hf auth login`, or set "
        "HF_TOKEN.",
    )
    parser.add_argument(
        "backbone",
        type=text,
        help="run folder, backbone folder, or whatever backbone= of the scripts takes",
    )
    parser.add_argument("repository", type=text, metavar="USER/NAME", help="where to")
    parser.add_argument("--private", action="store_true", help="create it private")
    parser.add_argument(
        "--license",
        type=text,
        metavar="ID",
        help="for the card, as the hub spells it: mit, cc-by-4.0, ...",
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Uploads, and says how to get the backbone back."""
    from ssl_swin.display.waiting import waiting
    from ssl_swin.launch.artifacts import local_backbone
    from ssl_swin.launch.next_command import job_line
    from ssl_swin.quoting import override
    from ssl_swin.weights.backbone import import_for_timm
    from ssl_swin.weights.hub import push_backbone
    from ssl_swin.weights.sources import default_cache

    folder = local_backbone(args.backbone, default_cache())
    with waiting(f"uploading to {args.repository}"):
        url = push_backbone(folder, args.repository, private=args.private, license_id=args.license)
    print(f"uploaded {folder} to {url}")
    call = f'timm.create_model("hf-hub:{args.repository}", pretrained=True, num_classes=0)'
    print(f"timm: {import_for_timm(folder)}{call}")
    backbone = override("backbone", f"hf-hub:{args.repository}")
    print(f"next: {job_line('linear_probe', [backbone])}")
