"""Encoded files → upright RGB: what Pillow shows, whatever the mode, and a named error for what is broken."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from rsconvert.data.decoding import EncodedImage, as_pillow, from_pillow, in_channels, reads_heif
from rsconvert.data.masks import MaskReading, read_mask
from rsconvert.errors import DataError


def smooth(height=90, width=120):
    """Red rises to the right by 2 a pixel, green downwards, blue in waves: no two corners are alike."""
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 100 * np.sin(rows / 9) * np.cos(columns / 7)
    return np.stack([2 * columns, 2 * rows, waves], axis=-1).clip(0, 255).astype(np.uint8)


def encoded(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data, name):
    return EncodedImage(data, name).decode()


def pixels(image):
    return image.permute(1, 2, 0).numpy().astype(int)


PICTURE = Image.fromarray(smooth())
IMAGE = torch.from_numpy(smooth()).permute(2, 0, 1)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PPM", {})],
)
def test_lossless_files_give_their_pixels(kind, options):
    image = decode(encoded(PICTURE, kind, **options), "x")
    assert (image.shape, image.dtype) == ((3, 90, 120), torch.uint8)
    assert torch.equal(image, IMAGE)


def test_lossless_webp_gives_its_pixels():
    assert torch.equal(decode(encoded(PICTURE, "WEBP", lossless=True), "x"), IMAGE)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "JPEG"),
        ("CMYK", "JPEG"),
        ("L", "JPEG"),
        ("RGB", "WEBP"),
        ("RGBA", "WEBP"),
        ("P", "GIF"),
        ("L", "GIF"),
        ("P", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("1", "PNG"),
        ("1", "TIFF"),
        ("P", "BMP"),
        ("CMYK", "TIFF"),
        ("RGBA", "TIFF"),
    ],
)
def test_every_mode_decodes_as_pillow_converts_it(mode, kind):
    data = encoded(PICTURE.convert(mode), kind)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(pixels(decode(data, "x")) - expected).max() <= 1


def test_adobes_cmyk_with_its_colours_transformed_decodes_as_by_pillow():
    """YCCK: the fourth number of Adobe's marker says that cyan, magenta and yellow are stored as luma and chroma."""
    data = bytearray(encoded(PICTURE.convert("CMYK"), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2
    picture = Image.open(io.BytesIO(bytes(data)))
    assert picture.mode == "CMYK"
    assert np.abs(pixels(decode(bytes(data), "x")) - np.asarray(picture.convert("RGB")).astype(int)).max() <= 2


def test_alpha_is_dropped_not_blended():
    picture = PICTURE.convert("RGBA")
    picture.putalpha(10)
    assert torch.equal(decode(encoded(picture, "PNG"), "x"), IMAGE)


@pytest.mark.parametrize("transparency", [1, bytes([0, 128, 255])])
def test_a_transparent_palette_gives_its_colours(transparency):
    picture = Image.new("P", (3, 2))
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture.putdata([0, 1, 2, 2, 1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(encoded(picture, "PNG", transparency=transparency), "x")
    rows = [[255, 0, 0], [0, 255, 0], [0, 0, 255]]
    assert image.permute(1, 2, 0).tolist() == [rows, rows[::-1]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_the_high_byte(kind):
    values = (np.arange(90 * 120).reshape(90, 120) * 6).astype(np.uint16)
    image = decode(encoded(Image.fromarray(values), kind), "x")
    assert image.dtype == torch.uint8
    assert np.array_equal(image.numpy(), np.repeat((values >> 8)[None], 3, axis=0))


def test_sixteen_bits_of_three_colours_keep_the_high_byte():
    """Pillow can't write such a PNG."""
    values = np.random.default_rng(0).integers(0, 2**16, (5, 4, 3), dtype=np.uint16)
    image = decode(_png16(values), "x")
    assert image.dtype == torch.uint8
    assert np.array_equal(pixels(image), values >> 8)


def _png16(values):
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(rows), b"IEND"]
    body = b"".join(struct.pack(">I", len(chunk) - 4) + chunk + _crc(chunk) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options), "x")
    assert image.shape == (3, 6, 8)
    assert image[:, 0, 0].tolist() == [255, 0, 0]


def test_a_jpeg_of_several_pictures_gives_the_first():
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    encoded_image = EncodedImage(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]), "x")
    assert encoded_image.decode()[:, 0, 0].tolist() == [254, 0, 0]
    assert encoded_image.decode(2).shape == (3, 3, 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_upright_as_pillow_turns_them(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PICTURE, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")).astype(int)
    image = EncodedImage(data, "x")
    assert image.shape == (3, *expected.shape[:2]) == ((3, 90, 120) if orientation < 5 else (3, 120, 90))
    assert image.decode().shape == image.shape
    assert np.abs(pixels(image.decode()) - expected).max() <= 1
    assert np.abs(pixels(from_pillow(Image.open(io.BytesIO(data)))) - expected).max() <= 1
    if kind == "JPEG":
        halves = expected.reshape(expected.shape[0] // 2, 2, -1, 2, 3).mean((1, 3))
        assert np.abs(pixels(image.decode(2)) - halves).mean() < 2


def test_broken_exif_data_are_ignored():
    data = encoded(PICTURE, "JPEG", exif=b"Exif\0\0no such thing")
    assert decode(data, "x").shape == (3, 90, 120)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"icc_profile": bytes(70000)}, {"comment": b"\xff\xc0 no size"}], ids=str
)
def test_the_size_of_a_plain_jpeg_is_found_without_pillow(options, monkeypatch):
    data = encoded(PICTURE, "JPEG", **options)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", None)
        image = EncodedImage(data, "x")
        assert image.shape == (3, 90, 120)
    assert torch.equal(image.decode(), decode(data, "x"))


@pytest.mark.parametrize("end", range(0, 700, 7))
def test_a_jpeg_that_ends_anywhere_is_named(end):
    with pytest.raises(DataError, match="x can't be decoded"):
        decode(encoded(PICTURE, "JPEG")[:end], "x")


@pytest.mark.parametrize("reduction", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_can_be_decoded_at_a_fraction_of_its_size(reduction, mode):
    picture = Image.fromarray(smooth(96, 120)).convert(mode)
    image = EncodedImage(encoded(picture, "JPEG", quality=95), "x")
    reduced = image.decode(reduction)
    expected = picture.convert("RGB").reduce(reduction)
    assert np.abs(pixels(reduced) - np.asarray(expected).astype(int)).mean() < 2
    assert torch.equal(image.decode(reduction), reduced)


@pytest.mark.parametrize(("reduction", "height", "width"), [(2, 50, 62), (4, 25, 31), (8, 13, 16)])
def test_a_fraction_of_a_size_is_rounded_up(reduction, height, width):
    image = EncodedImage(encoded(Image.new("RGB", (123, 100)), "JPEG"), "x")
    assert image.shape == (3, 100, 123)
    assert image.decode(reduction).shape == (3, height, width)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_other_formats_are_decoded_whole(kind):
    image = EncodedImage(encoded(PICTURE, kind), "x")
    assert torch.equal(image.decode(2), image.decode())
    assert image.decode().shape == image.shape


def test_from_pillow_makes_grey_three_colours():
    assert torch.equal(from_pillow(Image.new("L", (4, 3), 7)), torch.full((3, 3, 4), 7, dtype=torch.uint8))


def test_grey_values_are_rounded_sums_of_the_colours_and_those_of_pillow():
    image = from_pillow(PICTURE)
    grey = in_channels(image, 1)
    expected = np.einsum("chw,c->hw", image.numpy().astype(float), (0.299, 0.587, 0.114))
    assert grey.shape == (1, *image.shape[1:])
    assert np.abs(grey[0].numpy() - expected).max() < 0.51
    assert np.array_equal(as_pillow(grey), PICTURE.convert("L"))
    assert as_pillow(image).tobytes() == PICTURE.convert("RGB").tobytes()
    assert in_channels(image, 3) is image


def test_a_photo_has_no_other_number_of_channels():
    for channels in (2, 4):
        with pytest.raises(DataError, match=f"takes images of {channels} channels; a photo has 3, or 1 in grey"):
            in_channels(torch.zeros(3, 4, 4, dtype=torch.uint8), channels)


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_a_truncated_file_is_named(kind, reduction):
    data = encoded(PICTURE, kind)
    with pytest.raises(DataError, match=r"^dir/a\.jpg can't be decoded \(.+\); .* Replace or remove it\.$") as caught:
        EncodedImage(data[: len(data) // 2], "dir/a.jpg").decode(reduction)
    assert "\n" not in str(caught.value)


def test_a_png_with_a_filter_of_no_kind_is_named():
    """torchvision's decoder would end the process."""
    rows = b"".join(bytes([9 * (row == 50)]) + bytes(3 * 40) for row in range(60))
    header = struct.pack(">IIBBBBB", 40, 60, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in parts]
    with pytest.raises(DataError, match=r"^a\.png can't be decoded"):
        decode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), "a.png")


def test_postscript_is_refused_and_never_drawn(monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)  # as Ghostscript would be started
    data = encoded(PICTURE, "EPS")
    with pytest.raises(DataError, match=r"^a\.jpg is EPS, a program .*Convert it to PNG"):
        EncodedImage(data, "a.jpg")
    with pytest.raises(DataError, match="an image is EPS"):
        from_pillow(Image.open(io.BytesIO(data)))
    with pytest.raises(DataError, match="mask m is EPS"):
        read_mask(data, "m", MaskReading())


@pytest.mark.parametrize(("data", "reason"), [(b"", "the file is empty"), (b"<html>", "no known image format")])
def test_what_is_no_image_is_named_with_the_reason(data, reason):
    with pytest.raises(DataError, match=rf"^a\.jpg can't be decoded \({reason}\)"):
        decode(data, "a.jpg")


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_decompression_bomb_is_named_before_it_is_decoded(kind):
    """The height alone is forged: 100 times 1.8 million pixels are more than Pillow allows."""
    data = bytearray(encoded(Image.new("L", (30000, 60)), kind))
    if kind == "PNG":
        data[20:24] = (6000).to_bytes(4, "big")
        data[29:33] = _crc(data[12:29])
    else:
        start = data.index(b"\xff\xc0")
        data[start + 5 : start + 7] = (6000).to_bytes(2, "big")
    with pytest.raises(DataError, match=r"^a\.jpg can't be decoded \(Image size \(180000000 pixels\) exceeds .*bomb"):
        EncodedImage(bytes(data), "a.jpg")


def _crc(chunk):
    return zlib.crc32(chunk).to_bytes(4, "big")


@pytest.mark.skipif(reads_heif(), reason="pillow-heif is installed")
def test_heic_without_its_package_is_named() -> None:
    data = b"\x00\x00\x00\x18ftypheic" + bytes(20)
    with pytest.raises(DataError, match=r"^a.heic can't be decoded \(HEIC needs the package pillow-heif \(pip install"):
        EncodedImage(data, "a.heic")


@pytest.mark.skipif(not reads_heif(), reason="pillow-heif is not installed")
def test_heic_is_read_by_its_package() -> None:
    from pillow_heif import from_pillow as encoded

    content = io.BytesIO()
    encoded(Image.new("RGB", (16, 8), (200, 100, 50))).save(content, quality=-1)
    image = EncodedImage(content.getvalue(), "a.heic").decode()
    assert image.shape == (3, 8, 16)
    assert (image[:, 4, 8].int() - torch.tensor([200, 100, 50])).abs().max() <= 3


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_newer_formats_are_read(kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 100, 50)).save(content, kind)
    image = EncodedImage(content.getvalue(), "a").decode()
    assert (image[:, 4, 8].int() - torch.tensor([200, 100, 50])).abs().max() <= 6
