"""Pictures of problems: found in a row, checked, and turned into what a model takes. Pillow is imported only here.

A row holds paths or encoded files, never pixels: a 640 x 480 JPEG is 82 KB, its features 7 MB.
"""

import base64
import binascii
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

MARK = "<image>"  # where a picture goes in a problem's text; without marks pictures come first
FIELDS = ("images", "image", "image_path")  # columns that may hold pictures
MAX_ASPECT = 200  # longer side over shorter; above it processors fail
MAX_BYTES = 64 << 20  # of an encoded picture
TEXT_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}  # not made of pictures
PATCH_NUMBERS = 3 * 14 * 14  # pixel values that count as one patch, where features do not say


def find_pictures(columns: dict, folder: Path) -> list[str | bytes] | None:
    """The pictures of a row, each an absolute path or an encoded file; None if no column has any. folder: of the data.
    ValueError: an entry that is neither a path, nor bytes, nor {"bytes", "path"}, nor base64."""
    for name in FIELDS:
        value = columns.get(name)
        if value is not None and value != [] and value != "":
            return [one_picture(entry, name, folder) for entry in (value if isinstance(value, list) else [value])]
    return None


def one_picture(entry: object, name: str, folder: Path) -> str | bytes:
    if isinstance(entry, dict):
        entry = entry.get("bytes") or entry.get("path")
    if isinstance(entry, bytes):
        return entry
    if not isinstance(entry, str):
        raise ValueError(f"{name} holds {entry!r:.60}; a picture is a path, bytes, a dict of these, or base64")
    if len(entry) < 1024 and not entry.startswith("data:"):
        return str(folder / entry)
    try:
        return base64.b64decode(entry.partition("base64,")[2] or entry, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{name}: neither a path nor base64 ({entry[:40]!r})") from None


def with_marks(problem: str, pictures: Sequence) -> str:
    """The problem's text with a mark for each picture. ValueError: marks for another number of pictures."""
    marks = problem.count(MARK)
    if marks not in (0, len(pictures)):
        raise ValueError(f"{marks} marks {MARK} in the problem, and {len(pictures)} pictures")
    return problem if marks else MARK * len(pictures) + problem


def encoded(picture: str | bytes) -> bytes:
    """The file's bytes, which ranks and records carry. ValueError: missing, or above MAX_BYTES."""
    if isinstance(picture, str):
        path = Path(picture)
        if not path.is_file():
            raise ValueError(f"no picture at {picture}")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{picture} has {path.stat().st_size >> 20} MB; at most {MAX_BYTES >> 20} can be read")
        picture = path.read_bytes()
    return picture


def open_picture(picture: str | bytes, header_only: bool = False):
    """A PIL image in RGB, turned upright. ValueError, in one line: missing, no picture, cut off, a decompression bomb,
    or more than MAX_ASPECT times as long as wide. header_only: checks without decoding -> the image, not yet loaded."""
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise ValueError("pictures need Pillow: pip install pillow") from None
    name = picture if isinstance(picture, str) else f"{len(picture)} bytes"
    data = encoded(picture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if max(width, height) > MAX_ASPECT * min(width, height):
                raise ValueError(f"{width} x {height} pixels; at most {MAX_ASPECT} times as long as wide")
            return image if header_only else ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{name} can't be read as a picture: {reason}") from None


def load_processor(folder: str | Path, tokenizer, min_pixels: int | None = None, max_pixels: int | None = None):
    """The processor of a model that reads pictures, without torchvision; None if the model has no image processor.

    min_pixels, max_pixels: a picture is resized to between them, where the model's image processor knows such limits.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    limits = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    limits = {name: x for name, x in limits.items() if x is not None}
    try:
        images = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil", **limits)
    except (OSError, ValueError, ImportError):
        return None
    try:
        kind = type(transformers.AutoProcessor.from_pretrained(folder, backend="pil"))
    except (ImportError, ValueError, OSError):  # its part for video needs torchvision
        model_type = transformers.AutoConfig.from_pretrained(folder).model_type
        kind = getattr(transformers, PROCESSOR_MAPPING_NAMES[model_type])

    return joined(kind, images, tokenizer)


def joined(kind: type, image_processor, tokenizer):
    """A processor of that class, without its part for video."""

    class WithoutVideo(kind):
        def check_argument_for_proper_class(self, name, argument):
            return None if argument is None else super().check_argument_for_proper_class(name, argument)

    WithoutVideo.__name__ = kind.__name__
    parts = {"image_processor": image_processor, "tokenizer": tokenizer, "chat_template": tokenizer.chat_template}
    return WithoutVideo(**parts)


def spelling(processor) -> str:
    """How the model's chat template spells a picture, before the processor expands it to as many tokens as needed."""
    if processor.tokenizer.chat_template:
        content = [{"type": "text", "text": "(a"}, {"type": "image"}, {"type": "text", "text": "b)"}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=False)
        inside = text.partition("(a")[2].partition("b)")[0]
        if inside.strip():
            return inside
    return processor.image_token


def expander(processor, pictures: Sequence[str | bytes]) -> Callable[[str], list[int]]:
    """The function from a prompt's text, with a `spelling` for each picture, to its token ids, with an image token for
    each of a picture's features. Only a picture's size matters for them, so it is not decoded."""
    from PIL import Image

    blanks = [Image.new("RGB", open_picture(picture, header_only=True).size) for picture in pictures]

    def expand(text: str) -> list[int]:
        ids = processor(text=[text], images=[blanks], add_special_tokens=False).input_ids[0]
        if ids[-1] == processor.tokenizer.convert_tokens_to_ids(processor.image_token):
            raise ValueError("the prompt ends with a picture; a completion needs a token of text before it")
        return list(ids)

    return expand


def features_of(processor) -> Callable[[Sequence[str | bytes]], dict]:
    """The function from the pictures of one prompt to the model's inputs, {name: tensor}; {} for none."""
    picture = spelling(processor)

    def features(pictures: Sequence[str | bytes]) -> dict:
        if not pictures:
            return {}
        images = [open_picture(each) for each in pictures]
        made = processor(text=[picture * len(images)], images=[images], return_tensors="pt", add_special_tokens=False)
        return {name: x for name, x in made.items() if name not in TEXT_INPUTS}

    return features


def num_patches(features: dict) -> int:
    """What the vision tower has to do: rows of flat pixel values, or else pixel values over those of a patch."""
    pixels = features.get("pixel_values")
    if pixels is None:
        return 0
    return len(pixels) if pixels.dim() == 2 else pixels.numel() // PATCH_NUMBERS
