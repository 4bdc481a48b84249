"""Sentences about cartoon faces, written from their attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_SUBJECTS = (  # what stands before the list
    "a face with",
    "a cartoon face with",
    "this person has",
    "a portrait of somebody with",
    "the picture shows a face with",
    "an avatar that has",
    "a drawing of a person with",
    "",
)
CAPTIONS = len(_SUBJECTS)
"""The number of ways in which a face is described."""

_PARTS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "skin": {
        "pale": ("pale skin", "a pale skin"),
        "light": ("light skin", "a light skin"),
        "tan": ("tan skin", "a tan skin"),
        "brown": ("brown skin", "a brown skin"),
        "dark": ("dark skin", "a dark skin"),
    },
    "facial_hair": {
        "none": ("no beard", "a clean-shaven chin"),
        "moustache": ("a moustache", "a thick moustache"),
        "short beard": ("a short beard", "a short full beard"),
        "long beard": ("a long beard", "a long thick beard"),
    },
    "glasses": {
        "none": ("no glasses", "no spectacles"),
        "round": ("round glasses", "round spectacles"),
        "square": ("square glasses", "square spectacles"),
    },
    "eyes": {
        "open": ("open eyes", "eyes that look straight ahead"),
        "closed": ("closed eyes", "both eyes shut"),
        "wide": ("wide eyes", "eyes wide with surprise"),
        "wink": ("a winking eye", "one eye closed in a wink"),
    },
    "mouth": {
        "smile": ("a smile", "a smiling mouth"),
        "serious": ("a serious mouth", "the mouth shut"),
        "shout": ("a shouting mouth", "the mouth wide open"),
        "tongue": ("the tongue out", "a tongue that sticks out"),
        "teeth": ("bared teeth", "a grin that shows all teeth"),
    },
}

_HAIR: Mapping[str, Sequence[str]] = {  # {} is the colour
    "short": ("short {} hair", "{} hair cut short"),
    "quiff": ("a {} quiff", "{} hair in a quiff"),
    "mohawk": ("a {} mohawk", "{} hair in a mohawk"),
    "spiky": ("spiky {} hair", "{} hair in spikes"),
    "bun": ("a {} bun", "{} hair in a bun"),
    "bob": ("a {} bob", "{} hair in a bob"),
    "fringe": ("{} hair with a fringe", "a {} fringe"),
    "long": ("long {} hair", "{} hair worn long"),
    "curly": ("curly {} hair", "{} curls"),
    "afro": ("a {} afro", "{} hair in an afro"),
    "cornrows": ("{} cornrows", "{} hair in cornrows"),
    "wild": ("wild {} hair", "{} hair that stands out wildly"),
}


def caption(face: Mapping[str, str], phrasing: int = 0) -> str:
    """A sentence about a face.

    What the sentence says first, and its words, depend on the phrasing. It says nothing of attributes that `face`
    leaves out.

    >>> caption({"hair": "short", "hair_colour": "red", "glasses": "round", "facial_hair": "short beard"})
    'a face with short red hair, a short beard and round glasses'
    >>> caption({"hair_colour": "red", "glasses": "none"}, 1)
    'a cartoon face with no glasses and red hair'

    Args:
        face: attribute -> value, of `limner.data.sources.avatars.VALUES`.
        phrasing: which of the `CAPTIONS` ways, from 0.

    Raises:
        ValueError: there is no such phrasing, attribute or value, or `face` names no attribute.
    """
    if not 0 <= phrasing < CAPTIONS:
        raise ValueError(f"there is no phrasing {phrasing}; choose 0 to {CAPTIONS - 1}")
    parts = [_hair(face, phrasing)] if "hair" in face or "hair_colour" in face else []
    for k, (name, words) in enumerate(_PARTS.items()):
        if name in face:
            # bit k mod 3 of the phrasing: of eight phrasings, no two take the same words
            parts.append(_of(words, name, face)[phrasing >> k % 3 & 1])
    if not parts or face.keys() - _PARTS.keys() - {"hair", "hair_colour"}:
        raise ValueError(f"{dict(face)} names no attribute of faces, or another one")
    turn = phrasing % len(parts)
    parts = parts[turn:] + parts[:turn]
    listed = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    return " ".join(filter(None, (_SUBJECTS[phrasing], listed)))


def _hair(face: Mapping[str, str], phrasing: int) -> str:
    """``short red hair``, ``red hair`` or ``short hair``, as much as is known."""
    colour = face.get("hair_colour", "")
    if "hair" not in face:
        return f"{colour} hair"
    # without a colour, {} hair in a bun is "a bun"
    words = _of(_HAIR, "hair", face)[phrasing >> 2 & 1 if colour else 0]
    return " ".join(words.format(colour).split())


def _of(known: Mapping[str, Sequence[str]], name: str, face: Mapping[str, str]) -> Sequence[str]:
    if face[name] not in known:
        raise ValueError(f"{name} of faces has no value {face[name]!r}")
    return known[face[name]]
