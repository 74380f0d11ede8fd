"""Which photographs of the demo train, and in which round each of the others is judged.

What is exchangeable is a photograph (docs/calibration.md), and there are few. So those that do not
train take turns: in each round a part of them is judged by intervals that the others set.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass

from utils.files.atomic import write_text_atomic
from utils.files.storage import make_folder
from utils.process.errors import DataError

DATA_DIR = "data/demo"
NUM_TRAINING = 21
NUM_ROUNDS = 6


@dataclass(frozen=True)
class Split:
    """Names below `DATA_DIR`; `rounds` has those that are judged in each, about equally many."""

    training: tuple[str, ...]
    rounds: tuple[tuple[str, ...], ...]

    @property
    def held_out(self) -> tuple[str, ...]:
        """All that do not train."""
        return tuple(name for part in self.rounds for name in part)

    def calibrating(self, place: int) -> tuple[str, ...]:
        """Those that set the intervals of a round: what is judged in the others."""
        return tuple(
            name for other, part in enumerate(self.rounds) if other != place for name in part
        )


def draw_split(seed: int, data_dir: str = DATA_DIR) -> Split:
    """The split of the demo's photographs, a function of their names and the seed.

    All photographs of an author with several train, so that those held out are of an author each.

    Raises:
        DataError: there is no list of the photographs.
    """
    from utils.seeds import stable_seed  # numpy: not for `--help`

    path = os.path.join(data_dir, "photographs.csv")
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        authors = {f"{row['split']}/{row['name']}.jpg": row["author"] for row in rows}
    except (OSError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); run demo_restore.py in the folder of the toolkit, "
            "whose photographs it needs"
        ) from None
    counts = Counter(authors.values())
    several = [name for name, author in authors.items() if counts[author] > 1]
    others = sorted(
        (name for name, author in authors.items() if counts[author] == 1),
        key=lambda name: stable_seed(seed, "demo_restore", name),
    )
    num_more = NUM_TRAINING - len(several)
    held_out = others[num_more:]
    if num_more < 0 or len(held_out) < NUM_ROUNDS:
        raise DataError(f"{path} lists {len(rows)} photographs: too few to train and to judge on")
    rounds = tuple(tuple(sorted(held_out[k::NUM_ROUNDS])) for k in range(NUM_ROUNDS))
    return Split(tuple(sorted(several + others[:num_more])), rounds)


def write_lists(split: Split, folder: str) -> None:
    """Write `held_out.txt` and `calibrating_<round>.txt`, a name a line, for `sr_data_info.py`."""
    lists = {"held_out": split.held_out}
    lists |= {f"calibrating_{k}": split.calibrating(k) for k in range(len(split.rounds))}
    make_folder(folder)
    for name, images in lists.items():
        write_text_atomic(os.path.join(folder, f"{name}.txt"), "\n".join([*images, ""]))
