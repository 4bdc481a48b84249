"""Cartoon faces with known attributes: hair, its colour, skin, facial hair, glasses, mouth and eyes.

The parts come from `python-avatars` (Ibon Escartin, MIT licence; the design is Avataaars by Pablo Stanley, free for any
use) and are drawn by `resvg-py`. A label says what is to be seen. So only tops are used that show the beard, the
glasses and the colour of the hair (others of the package hide one of them), the beard has the colour of the hair,
clothes and background are fixed, and colours of hair and skin are far enough apart.

A face is two drawings, one over the other: the head with its mouth and eyes (100 drawings), and hair with beard and
glasses (864 drawings). These are drawn once and kept in the user's cache; any number of faces is put together from
them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from importlib.metadata import version
from math import prod
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from limner.core.errors import LimnerError, extra, unknown
from limner.core.units import Count
from limner.data.arrays import Arrays
from limner.data.files.download import computed
from limner.data.options import Options
from limner.data.registry import source
from limner.data.sources._captions import CAPTIONS, caption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from limner.core.batch import Dataset

_HAIR = {  # names in python-avatars; each top shows beard, glasses and the colour of the hair
    "short": "SHORT_FLAT",
    "quiff": "QUIFF",
    "mohawk": "MOHAWK",
    "spiky": "EVIL_SPIKE",
    "bun": "BUN",
    "bob": "BOB",
    "fringe": "MIA_WALLACE",
    "long": "STRAIGHT_1",
    "curly": "CURLY",
    "afro": "FRO",
    "cornrows": "CORNROWS",
    "wild": "EINSTEIN_HAIR",
}
_HAIR_COLOUR = {
    "black": "#201818",
    "brown": "#874617",
    "blonde": "#EBCB53",
    "red": "#C93305",
    "pink": "#E8589F",
    "grey": "#CDD0D6",
}
_SKIN = {"pale": "#FFDBB4", "light": "#EDB98A", "tan": "#D9976A", "brown": "#B8703C", "dark": "#614028"}
_FACIAL_HAIR = {
    "none": "NONE",
    "moustache": "MOUSTACHE_MAGNUM",
    "short beard": "BEARD_LIGHT",
    "long beard": "BEARD_MAGESTIC",
}
_GLASSES = {"none": "NONE", "round": "ROUND", "square": "PRESCRIPTION_2"}
_MOUTH = {"smile": "SMILE", "serious": "SERIOUS", "shout": "SCREAM_OPEN", "tongue": "TONGUE", "teeth": "GRIMACE"}
_EYES = {"open": "DEFAULT", "closed": "CLOSED", "wide": "SURPRISED", "wink": "WINK"}
_BACKGROUND = "#8CCBE6"

VALUES: dict[str, list[str]] = {
    "hair": list(_HAIR),
    "hair_colour": list(_HAIR_COLOUR),
    "skin": list(_SKIN),
    "facial_hair": list(_FACIAL_HAIR),
    "glasses": list(_GLASSES),
    "mouth": list(_MOUTH),
    "eyes": list(_EYES),
}
"""The attributes and the names of their values."""
_ORDER = tuple(VALUES)
_SIZES = tuple(len(values) for values in VALUES.values())
FACES = prod(_SIZES)
"""The number of different faces: 86,400."""

_VIEW = (40, 6, 184)  # left, top and side of the square that is drawn, in units of the drawing
_SIDES = (64, 128, 256)  # at which faces are drawn; smaller ones are reduced from 64
_ABOUT_500 = 512  # faces put together at a time


def held_out(table: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which faces (N,7) are in the split ``test``: those with 12 of the 72 triples of hair colour, glasses and beard.

    Every value is as frequent in these triples as in the others, so that held-out images differ from training images in
    nothing but the combination; and every *pair* of values is trained on.
    """
    colour, glasses, beard = (table[:, _ORDER.index(name)] for name in ("hair_colour", "glasses", "facial_hair"))
    held: NDArray[np.bool_] = (colour + 2 * glasses + 3 * beard) % 6 == 0
    return held


@source("avatars")
def avatars(  # noqa: D417 - see Options
    n: Count = 12_000, attributes: list[str] | None = None, *, options: Options
) -> Dataset:
    """Cartoon faces with attributes (hair, its colour, skin, facial hair, glasses, mouth, eyes) and captions, at 64×64.

    There are 86,400 different faces, of which `n` are drawn at random, always the same. The split ``test`` has the
    combinations of hair colour, glasses and facial hair that ``train`` never shows: a sixth.

    Args:
        n: number of faces, those held out included. Raise it for more variety.
        attributes: the attributes that labels tell, such as [glasses, hair_colour]; by default all seven.
    """
    from limner.data.datasets import from_arrays

    if not 1 <= n <= FACES:
        raise LimnerError(f"n: there are {FACES:,} different faces; choose a number from 1 to {FACES}")
    told = _known(attributes)
    side = max(options.height_width or (_SIDES[0],))
    if side > _SIDES[-1]:
        raise LimnerError(f"avatars are drawn in memory; choose a size of at most {_SIDES[-1]}")
    table = sampled(n)
    columns = [_ORDER.index(name) for name in told]
    arrays = Arrays(
        images=faces(table, next(s for s in _SIDES if s >= side)),
        labels=table[:, columns],
        attributes={name: VALUES[name] for name in told},
        test=held_out(table),
        factors=table,
        factor_sizes=_SIZES,
        factor_names=_ORDER,
        texts=[[caption(face, k) for k in range(CAPTIONS)] for face in map(described, table.tolist())],
        notes=[
            "held out: a sixth of the combinations of hair colour, glasses and facial hair",
            "drawn from python-avatars (MIT) by resvg-py",
        ],
    )
    return from_arrays("avatars", arrays, options)


def _known(attributes: list[str] | None) -> list[str]:
    """The attributes that labels tell, in the order of `VALUES`."""
    if attributes is None:
        return list(_ORDER)
    if not attributes:
        raise LimnerError(f"attributes: {attributes!r} names none; write a list such as [glasses, hair]")
    for name in attributes:
        if name not in VALUES:
            raise unknown("attribute of avatars", name, VALUES)
    return [name for name in _ORDER if name in attributes]


def sampled(n: int) -> NDArray[np.int64]:
    """Value indices (n,7) of n different faces, always the same; fewer are the first of more."""
    import numpy as np

    # numpy guarantees that the numbers of `RandomState` never change
    order = np.random.RandomState(0).permutation(FACES)[:n]
    return np.stack(np.unravel_index(order, _SIZES), 1).astype(np.int64)


def described(face: list[int]) -> dict[str, str]:
    """The names of the values of a face's attributes.

    >>> described([0, 3, 1, 0, 1, 0, 3])["glasses"]
    'round'
    """
    return {name: VALUES[name][k] for name, k in zip(_ORDER, face, strict=True)}


# --- drawing ---------------------------------------------------------------------------------------------------------


def faces(table: NDArray[np.int64], side: int = 64) -> NDArray[np.uint8]:
    """Faces (N,side,side,3) uint8 of value indices (N,7), put together from drawings in the cache.

    Raises:
        LimnerError: the extra ``avatars`` is not installed.
    """
    import numpy as np

    drawings = _drawings(side)
    heads, tops = drawings["heads"], drawings["tops"]
    hair, colour, skin, beard, glasses, mouth, eyes = table.T
    out = np.empty((len(table), side, side, 3), dtype=np.uint8)
    for first in range(0, len(table), _ABOUT_500):
        part = slice(first, first + _ABOUT_500)
        below = heads[skin[part], mouth[part], eyes[part]].astype(np.float32)
        above = tops[hair[part], colour[part], beard[part], glasses[part]].astype(np.float32)
        alpha = above[..., 3:] / 255
        out[part] = np.rint(below + alpha * (above[..., :3] - below))
    return out


def _drawings(side: int) -> dict[str, NDArray[np.uint8]]:
    """All heads (5,5,4,side,side,3) and tops (12,6,4,3,side,side,4), from the cache if it has them."""
    package = extra("python_avatars", "avatars", "avatars are put together by python-avatars")
    resvg = extra("resvg_py", "avatars", "avatars are drawn by resvg-py")
    key = f"{side}px-python-avatars-{version('python-avatars')}-resvg-py-{version('resvg-py')}-1"
    return computed("avatars", key, lambda: _draw(side, package, resvg))


def _draw(side: int, package: Any, resvg: Any) -> dict[str, Any]:
    """Draws all heads and all tops."""
    import numpy as np

    heads = np.empty((*_sizes("skin", "mouth", "eyes"), side, side, 3), dtype=np.uint8)
    for index in np.ndindex(heads.shape[:3]):
        chosen = _face(skin=index[0], mouth=index[1], eyes=index[2])
        heads[index] = _drawn(_svg(package, chosen, ("Body", "Face")), side, resvg, _BACKGROUND)[..., :3]
    tops = np.empty((*_sizes("hair", "hair_colour", "facial_hair", "glasses"), side, side, 4), dtype=np.uint8)
    for index in np.ndindex(tops.shape[:4]):
        chosen = _face(hair=index[0], hair_colour=index[1], facial_hair=index[2], glasses=index[3])
        tops[index] = _drawn(_svg(package, chosen, ("Top",)), side, resvg, None)
    return {"heads": heads, "tops": tops}


def _sizes(*names: str) -> tuple[int, ...]:
    return tuple(len(VALUES[name]) for name in names)


def _face(**chosen: int) -> dict[str, str]:
    """The names of the values of a face, the first value of what is not chosen."""
    return described([chosen.get(name, 0) for name in _ORDER])


def _svg(package: Any, face: Mapping[str, str], shown: tuple[str, ...]) -> str:
    """The SVG of a face, cut to the head, with the groups `shown` of Body, Clothing, Face and Top."""
    colour = _HAIR_COLOUR[face["hair_colour"]]
    try:
        whole = package.Avatar(
            style=package.AvatarStyle.TRANSPARENT,
            top=package.HairType[_HAIR[face["hair"]]],
            hair_color=colour,
            facial_hair=package.FacialHairType[_FACIAL_HAIR[face["facial_hair"]]],
            facial_hair_color=colour,
            accessory=package.AccessoryType[_GLASSES[face["glasses"]]],
            skin_color=_SKIN[face["skin"]],
            mouth=package.MouthType[_MOUTH[face["mouth"]]],
            eyes=package.EyeType[_EYES[face["eyes"]]],
            eyebrows=package.EyebrowType.DEFAULT_NATURAL,
            nose=package.NoseType.DEFAULT,
            clothing=None,  # the package's default is another one in every process
        ).render()
    except (KeyError, AttributeError) as error:
        raise LimnerError(
            f"python-avatars {version('python-avatars')} lacks the part {error}; install python-avatars 1.4"
        ) from None
    root = ET.fromstring(whole)
    groups = {f"transparent_{name}": name for name in ("Body", "Clothing", "Face", "Top")}
    for element in root.iter():
        if groups.get(element.get("id", ""), shown[0]) not in shown:
            element.set("display", "none")
    left, top, side = _VIEW
    root.attrib.update(viewBox=f"{left} {top} {side} {side}", width=str(side), height=str(side))
    return ET.tostring(root, encoding="unicode")


def _drawn(svg: str, side: int, resvg: Any, background: str | None) -> NDArray[np.uint8]:
    """An SVG at side×side, (side,side,4) uint8."""
    import numpy as np
    from PIL import Image

    options = {"width": side, "height": side, "skip_system_fonts": True}
    png = resvg.svg_to_bytes(svg_string=svg, **options, **({"background": background} if background else {}))
    return np.asarray(Image.open(io.BytesIO(bytes(png)), formats=("PNG",)).convert("RGBA"))
