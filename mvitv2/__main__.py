"""``python -m mvitv2`` is the ``mvitv2`` command."""

import sys

from mvitv2.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
