"""File formats of images: those that are read, and those that are named with what to do about them.

Everything is decided by the first bytes of a file, and its suffix only selects the files of a folder: phones and web
sites write HEIC and WebP under the name ``.jpg``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import BinaryIO

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
"""Pillow's readers that are asked. Others (EPS, PSD, FITS, JPEG 2000 ...) have had too many holes."""

_READ = ".png .apng .jpg .jpeg .jpe .jfif .webp .avif .heic .heif .hif .tif .tiff .bmp .gif .ppm .pgm .pbm .pnm"
SUFFIXES = frozenset(_READ.split())
"""Lower-case suffixes of the files that are read."""

KNOWN = "PNG, JPEG, WebP, AVIF, HEIC, TIFF, BMP, GIF or PPM"

_TO_PNG = "convert it to PNG"
_SEVERAL = {
    f"JPEG 2000: {_TO_PNG}": ".jp2 .j2k .j2c .jpc .jpf .jpx .jpm",
    f"JPEG XL: {_TO_PNG} or JPEG (djxl)": ".jxl",
    f"JPEG XR: {_TO_PNG}": ".jxr .wdp .hdp",
    "camera raw: develop it and save it as JPEG or 16-bit TIFF": (
        ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .orf .rw2 .pef .srw .3fr .fff .iiq .x3f .rwl .erf .mrw .kdc"
    ),
    "vector drawing: export it as PNG at the size that is needed": ".svg .svgz .eps .ps .ai .wmf .emf .cdr",
    "PDF: export its pages as PNG": ".pdf",
    "layered file: export it flattened as PNG": ".psd .psb .xcf .kra .afphoto .clip .ora",
    "high dynamic range: map its tones and save it as PNG": ".exr .hdr .pfm",
    "sequence of frames: save the frames as PNG": ".avifs .heics .heifs .mng .flc .fli",
    f"old or rare format: {_TO_PNG}": (
        ".tga .pcx .ico .cur .icns .dib .pam .qoi .sgi .rgb .rgba .bw .ras .dds .xbm .xpm .pict .pct .pcd .bpg .flif"
    ),
    "measured values: choose a range and save it as 16-bit PNG": ".fits .fit .dcm .nii .mha .nrrd",
}
UNREAD: dict[str, str] = {suffix: text for text, suffixes in _SEVERAL.items() for suffix in suffixes.split()}
"""Lower-case suffix of a picture that is not read -> what it is and what to do: "JPEG 2000: convert it to PNG"."""

_HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_MAGIC = {
    b"\0\0\0\x0cjP  ": ".jp2",
    b"\xff\x4f\xff\x51": ".jp2",
    b"\xff\x0a": ".jxl",
    b"\0\0\0\x0cJXL ": ".jxl",
    b"II\xbc": ".jxr",
    b"FUJIFILM": ".raf",
    b"IIRO": ".orf",
    b"IIU\0": ".rw2",
    b"%!PS": ".eps",
    b"\xc5\xd0\xd3\xc6": ".eps",
    b"%PDF": ".pdf",
    b"<svg": ".svg",
    b"<?xml": ".svg",
    b"<!DOCTYPE svg": ".svg",
    b"8BPS": ".psd",
    b"gimp xcf": ".xcf",
    b"v/1\x01": ".exr",
    b"#?RADIANCE": ".hdr",
    b"PF\n": ".pfm",
    b"Pf\n": ".pfm",
    b"P7\n": ".pam",
    b"\0\0\1\0": ".ico",
    b"\0\0\2\0": ".cur",
    b"icns": ".icns",
    b"DDS ": ".dds",
    b"qoif": ".qoi",
    b"SIMPLE": ".fits",
}

_NO_PICTURES = {
    b"<!doctype html": "a web page: download the picture again",
    b"<html": "a web page: download the picture again",
    b"version https://git-lfs": "a Git LFS pointer: get the picture with 'git lfs pull'",
}

NEEDS_AVIF = (
    "an AVIF picture, and this Pillow was built without its reader: pip install -U pillow, or convert it to PNG"
)
NEEDS_HEIF = 'a HEIC picture, and its reader is not installed: pip install "limner[heic]", or convert it to JPEG'


def is_heic(start: bytes) -> bool:
    """Whether the first 16 bytes or more are those of a HEIC picture."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC and b"avif" not in start[:64]


def unread(stream: BinaryIO) -> str | None:
    """What a file is whose format is known but not read, and what to do, as in `UNREAD`; else None."""
    from PIL import features

    stream.seek(0)
    start = stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t")
    if start[4:12] == b"ftypcrx ":
        return UNREAD[".cr3"]
    if start[4:12] in (b"ftypavif", b"ftypavis") and not features.check("avif"):
        return NEEDS_AVIF
    if (other := next((text for s, text in _NO_PICTURES.items() if start.lower().startswith(s)), None)) is not None:
        return other
    return next((UNREAD[suffix] for magic, suffix in _MAGIC.items() if start.startswith(magic)), None)


@cache
def register_heif() -> bool:
    """Adds the reader of HEIC to Pillow's; False if the extra is not installed."""
    try:
        import_module("pillow_heif").register_heif_opener()
    except (ImportError, OSError):  # not installed, or its library does not work here
        return False
    return True
