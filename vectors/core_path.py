"""Puts the second implementation on the path: the protocol core of the Python client. It is imported
as `_core`, without the package around it, which needs more than plain Python."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "clients/python/src/unstall"))
