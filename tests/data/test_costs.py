"""Files that would cost minutes or gigabytes are refused by counting, and large honest pictures are read."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from limner.data.files import decode, limits

from .golden import bmp, chunk, save  # noqa: TID252 - tests are no package that could be imported by name


def reason_of(raw: bytes, side: int | None = 16) -> str:
    began = time.process_time()
    with pytest.raises(Exception) as caught, decode.strict():  # noqa: PT011 - what Pillow raises differs
        decode.picture(io.BytesIO(raw), side)
    assert time.process_time() - began < 2
    return decode.reason(caught.value)


def with_scans(raw: bytes, n: int) -> bytes:
    """A JPEG whose last scan is repeated until there are n."""
    last = raw.rindex(b"\xff\xda")
    return raw[:-2] + raw[last:-2] * (n - raw.count(b"\xff\xda")) + raw[-2:]


@pytest.mark.parametrize("progressive", [True, False])
def test_a_jpeg_of_a_thousand_scans_is_refused(progressive):
    raw = save(Image.new("RGB", (64, 64), "red"), "JPEG", progressive=progressive)
    assert reason_of(with_scans(raw, 1000)) == "a JPEG of 1000 scans, which would take minutes to read; save it again"


def test_scans_times_pixels_are_bounded():
    raw = save(Image.new("L", (7000, 7000)), "JPEG", progressive=True)
    assert "of 60 scans" in reason_of(with_scans(raw, 60))


def test_the_scans_of_a_preview_do_not_count():
    exif = b"Exif\0\0" + b"\xff\xda" * 500
    with decode.strict():
        assert decode.picture(io.BytesIO(save(Image.new("L", (64, 64)), "JPEG", exif=exif))).size == (64, 64)


def test_a_file_that_a_reader_would_hold_whole_is_bounded():
    heic = b"\0\0\0\x18ftypheic" + bytes(12)
    assert reason_of(heic + bytes(64 << 20)) == "larger than 64 MiB"


def test_a_png_of_very_many_chunks_is_refused():
    raw = save(Image.new("L", (4, 4)), "PNG")
    many = chunk(b"teSt", b"") * 100_001
    assert "too many chunks" in reason_of(raw[:33] + many + raw[33:])
    assert "too many chunks" in reason_of(raw[:-12] + chunk(b"IDAT", b"") * 100_001 + raw[-12:])


def test_compressed_text_and_profiles_of_a_png_are_bounded():
    raw = save(Image.new("L", (4, 4)), "PNG")
    bomb = zlib.compress(bytes(40 << 20), 9)
    for name, start in ((b"zTXt", b"x\0\0"), (b"iCCP", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0")):
        reason = reason_of(raw[:33] + chunk(name, start + bomb) + raw[33:])
        assert reason == "text or a profile of more than 1 MiB beside the pixels; save it again without"


def test_a_gif_of_very_many_blocks_is_refused():
    raw = save(Image.new("P", (4, 4)), "GIF")
    start = 13 + (3 << (raw[10] & 7) + 1 if raw[10] & 0x80 else 0)
    assert "too many blocks" in reason_of(raw[:start] + b"\x21\xfe\1x\0" * 100_001 + raw[start:])
    assert "too many blocks" in reason_of(raw[:start] + b"\x21\xfe" + b"\1x" * 1_000_001 + b"\0" + raw[start:])


def test_large_files_that_pillow_reads_in_python_are_refused():
    runs = bmp(b"\0\1", 8, 1, palette=bytes(1024))
    assert "save it as PNG" in reason_of(runs[:18] + struct.pack("<ii", 10_000, 10_000) + runs[26:])
    assert "save it as PNG" in reason_of(b"P2 10000 10000 255 0 0")
    assert "save it as PNG" in reason_of(b"P5 10000 10000 100 " + bytes(9))


def test_a_ppm_with_a_very_long_remark_is_refused():
    assert "header of a PPM" in reason_of(b"P5\n#" + b"x" * (1 << 22) + b"\n4 4 255\n" + bytes(16))
    with decode.strict():
        assert decode.picture(io.BytesIO(b"P5\n# by hand\n4 #\n4 255\n" + bytes(16))).size == (4, 4)


def test_a_tiff_of_very_many_strips_or_tags_is_refused():
    def tag(number: int, kind: int, n: int, value: int) -> bytes:
        return struct.pack("<HHII", number, kind, n, value)

    def of(*tags: bytes, size: int = 0) -> bytes:
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4 + size)

    shape = (tag(256, 4, 1, 9), tag(257, 4, 1, 9), tag(258, 4, 1, 8), tag(262, 4, 1, 1), tag(278, 4, 1, 1))
    assert "too many strips" in reason_of(of(*shape, tag(273, 4, 1_100_000, 200), size=5_000_000))
    assert "damaged" in reason_of(of(*shape, tag(273, 4, 0xFFFFFFFF, 200)))
    assert "too many tags" in reason_of(b"II*\0\x08\0\0\0\xff\xff" + bytes(12 * 65535))


def test_a_phone_picture_of_50_megapixels_is_read_at_a_smaller_scale():
    raw = save(Image.new("L", (8160, 6144), 90), "JPEG", quality=50)
    with decode.strict():
        assert decode.header(io.BytesIO(raw)).size == (6144, 8160)
        small = decode.picture(io.BytesIO(raw), 64)
    assert small.size == (1020, 768)
    assert np.asarray(small).min() == np.asarray(small).max() == 90


def test_a_very_large_png_is_reduced_before_anything_else():
    raw = save(Image.new("1", (8160, 6144), 1), "PNG")
    with decode.strict():
        assert decode.picture(io.BytesIO(raw), 1000).size == (2720, 2048)
        assert decode.picture(io.BytesIO(raw)).size == (8160, 6144)


def test_larger_pictures_are_refused_by_their_header():
    ihdr = struct.pack(">IIBBBBB", 20_000, 10_001, 1, 0, 0, 0, 0)
    assert reason_of(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", b"")) == "larger than 200 megapixels"


def test_threads_hold_a_bounded_number_of_pixels(monkeypatch):
    monkeypatch.setattr(limits, "IN_FLIGHT", 100)
    flight, most, lock = limits._Flight(), 0, threading.Lock()

    def work(pixels: int) -> None:
        nonlocal most
        for _ in range(20):
            with flight.share():
                flight.take(pixels)
                with lock:
                    most = max(most, flight.pixels)
                time.sleep(0.0005)

    threads = [threading.Thread(target=work, args=(p,)) for p in (40, 50, 60, 30, 1000, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert 0 < most <= 100
    assert flight.pixels == 0


def test_a_thread_does_not_wait_for_itself():
    with limits.share():
        for _ in range(3):
            limits.take(limits.IN_FLIGHT)
        with limits.share():
            limits.take(5)
    with limits.share():
        limits.take(limits.IN_FLIGHT)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_wait_for_the_threads_of_its_parent():
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with limits.share():
            limits.take(limits.IN_FLIGHT)
            taken.set()
            done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(60)
    child = os.fork()
    if not child:
        with limits.share():
            limits.take(limits.IN_FLIGHT)
        os._exit(0)
    began = time.monotonic()
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < began + 20:
        time.sleep(0.01)
    if ended[0] == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    done.set()
    thread.join()
    assert ended == (child, 0)
