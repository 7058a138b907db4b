#!/usr/bin/env python3
"""Whether a wheel holds exactly the sources of the package, its licences and its metadata."""

import pathlib
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent


def main() -> int:
    source = HERE / "src"
    wanted = {str(path.relative_to(source)) for path in source.rglob("*.py")} | {"unstall/py.typed"}
    names = set(zipfile.ZipFile(sys.argv[1]).namelist())
    info = {name.split("/", 1)[1] for name in names if ".dist-info/" in name}
    held = {name for name in names if ".dist-info/" not in name}
    for name in sorted(held ^ wanted):
        print(f"{name}: {'is not a source' if name in held else 'is missing'}", file=sys.stderr)
    licences = {"licenses/LICENSE-APACHE", "licenses/LICENSE-MIT"}
    for name in ("LICENSE-APACHE", "LICENSE-MIT"):
        # A link would leave the archive of the sources.
        if (HERE / name).read_bytes() != (HERE.parent.parent / name).read_bytes():
            print(f"{name}: copy it anew from the root of the repository", file=sys.stderr)
            return 1
    for name in sorted(licences - info):
        print(f"{name}: is missing", file=sys.stderr)
    print(f"{len(held)} files in {pathlib.Path(sys.argv[1]).name}")
    return 1 if held != wanted or not licences <= info else 0


if __name__ == "__main__":
    sys.exit(main())
