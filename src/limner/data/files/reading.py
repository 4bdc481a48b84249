"""How folders and ZIPs are read: a number that the recipe of a run records, so that an old run goes on as it began.

1. As limner 0.1 did: classes in the order of their text (10 before 2); only ``train``, ``test`` and ``val``, in small
   letters, are splits; a picture beside class folders makes one set without classes; thumbnails of file servers are
   pictures.
2. Classes in natural order (2 before 10); the usual names of splits in any case; single pictures beside the class
   folders, and files of the system, are left out.
3. Tables beside the pictures (``metadata.csv`` and others, `limner.data.files.image_tables`) give attributes and
   captions.
"""

from __future__ import annotations

from typing import Literal

Reading = Literal[1, 2, 3]
LATEST: Reading = 3
