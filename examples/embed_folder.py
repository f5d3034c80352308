"""Features of a folder of images, and the nearest neighbours of each.

python examples/embed_folder.py runs/pretrain/swin_nano_demo PHOTOS
"""

import sys

import ssl_swin


def main(backbone: str, folder: str) -> None:
    """Print for each image the three that are most alike."""
    names, vectors = ssl_swin.embed(ssl_swin.load_backbone(backbone), folder)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    nearest = (vectors @ vectors.T).fill_diagonal_(-1).topk(min(3, len(names) - 1)).indices
    for name, row in zip(names, nearest.tolist(), strict=True):
        print(name, "->", ", ".join(names[index] for index in row))


if __name__ == "__main__":
    main(*sys.argv[1:])
