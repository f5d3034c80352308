"""`python -m ssl_swin`: the `ssl-swin` command where its script is not on PATH."""

import sys

from ssl_swin.cli import main

if __name__ == "__main__":
    sys.exit(main())
