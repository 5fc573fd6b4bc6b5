"""A part of an image folder with N training photos a class, as links, to see how methods fare with few photos.

python benchmarks/few_photos.py DIR OUTPUT --photos 30 [--seed 0]

OUTPUT gets train/ with N photos of each class, drawn by the seed, and val/ as it is. Nothing is copied.
"""

import argparse
import random
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--photos", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for folder in sorted(path for path in (given.data / "train").iterdir() if path.is_dir()):
        photos = sorted(folder.iterdir())
        if len(photos) < given.photos:
            raise SystemExit(f"{folder} has {len(photos)} photos; at least {given.photos} are needed.")
        place = given.output / "train" / folder.name
        place.mkdir(parents=True)
        for photo in random.Random(f"{given.seed}-{folder.name}").sample(photos, given.photos):
            (place / photo.name).symlink_to(photo.resolve())
    (given.output / "val").symlink_to((given.data / "val").resolve())


if __name__ == "__main__":
    main()
