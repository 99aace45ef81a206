"""Pictures, from what a row holds to what a model sees. All that needs Pillow is here; torchvision is never needed.

A row's "images" are files (absolute paths) or encoded bytes, never pixels: they are read when they are used. Each has
its place in the problem's text, a MARK.
"""

import hashlib
import io
import json
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import BinaryIO

from grader.boxes import find_box
from tasks.prompts import chat_text, encode_text, plain_text

MARK = "<image>"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # Pillow knows more, some of which run programs
MAX_BYTES = 100_000_000  # of an encoded picture
MAX_ASPECT = 200  # longer side / shorter side; processors of some models raise above it
PREVIEW = 128  # pixels of a longer side
ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
# (width, height) of a picture in the units of a gold box, by --box-scale, and of a model's boxes; None: in pixels
GOLD_SIZES = {"thousand": (1000, 1000), "unit": (1, 1), "pixels": None}
BOX_SIZES = {"qwen2_vl": (1000, 1000), "qwen2_5_vl": None, "qwen3_vl": (1000, 1000), "qwen3_vl_moe": (1000, 1000)}
STARTS = "/9j/|iVBOR|UklGR|R0lGOD|Qk|SUkq|TU0A"  # of the base64 of these formats
BASE64 = re.compile(rf"(?:data:image/[\w.+-]+;base64,|(?={STARTS}))([A-Za-z0-9+/\s]{{64,}})=*")


def picture_of(value: object, folder: Path) -> str | bytes:
    """A picture as files spell it -> its absolute path or its encoded bytes; nothing is read yet.
    value: a path, relative to the folder; bytes; base64, also as data:image/…; {"bytes": …, "path": …}.
    ValueError: anything else."""
    if isinstance(value, dict):
        value = next((value[key] for key in ("bytes", "path", "url") if value.get(key) is not None), value)
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"a picture is {value!r:.60}, neither a path nor bytes nor base64")
    if coded := BASE64.fullmatch(value.strip()):
        return b64decode(coded[1] + "==")  # as many = as any length needs
    if re.match(r"(https?|data):", value):
        raise ValueError(f"a picture is {value!r:.60}; only files, bytes and base64 are read: download it first")
    return os.path.abspath(folder / value.removeprefix("file://"))


@contextmanager
def reading(picture: str | bytes) -> Iterator[BinaryIO]:
    """The encoded picture as a file. ValueError, a line that names the picture: all that fails meanwhile."""
    try:
        if isinstance(picture, str) and not os.path.isfile(picture):  # nor a pipe or a device, which may never end
            raise ValueError("no such file")
        if (num := os.path.getsize(picture) if isinstance(picture, str) else len(picture)) > MAX_BYTES:
            raise ValueError(f"{num} bytes; at most {MAX_BYTES} are read")
        with open(picture, "rb") if isinstance(picture, str) else io.BytesIO(picture) as file:
            yield file
    except Exception as error:  # Pillow's have no common base class
        name = f"{picture!r:.300}" if isinstance(picture, str) else f"picture of {len(picture)} bytes"
        reason = str(error).partition("\n")[0] or type(error).__name__
        reason = f"not a picture ({', '.join(FORMATS)})" if "cannot identify" in reason else reason
        raise ValueError(f"{name}: {reason}") from None


def encoded(picture: str | bytes) -> bytes:
    """The bytes of the picture's file. ValueError: it can't be read."""
    with reading(picture) as file:
        return file.read()


def digest(pictures: list[str | bytes]) -> str:
    """Tells lists of pictures apart: a hash of their bytes."""
    return hashlib.sha256(b"".join(hashlib.sha256(encoded(p)).digest() for p in pictures)).hexdigest()


def pillow():
    """Pillow's main module. ValueError: it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise ValueError("pictures need Pillow; pip install pillow") from None
    return Image


def opened(file: BinaryIO):
    """Reads the header -> (a Pillow image without pixels yet, its orientation 1-8, (width, height) once upright)."""
    image = pillow().open(file, formats=FORMATS)
    width, height = image.size
    if width * height > (limit := pillow().MAX_IMAGE_PIXELS or 2**27):
        raise ValueError(f"{width} x {height} pixels are above Pillow's limit of {limit}; it may be a bomb")
    if min(width, height) < 1 or max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(f"{width} x {height} pixels: one side is more than {MAX_ASPECT} times the other")
    try:
        orientation = pillow().Image.getexif(image).get(ORIENTATION)  # PNG's own getexif would decode the pixels
    except Exception:  # broken EXIF in a picture that may be fine
        orientation = None
    if orientation not in range(2, 9) or image.format == "TIFF":  # which Pillow itself turns
        return image, 1, (width, height)
    return image, orientation, (height, width) if orientation > 4 else (width, height)


def open_picture(picture: str | bytes):
    """-> a Pillow image, RGB and upright; what is transparent lies on white, 16 bits become 8.
    ValueError, one line that names the picture: missing, no picture, cut off, too large, too long and thin."""
    with reading(picture) as file:
        image, orientation, _ = opened(file)
        from PIL import ImageOps

        image.load()
        image = ImageOps.exif_transpose(image) if orientation > 1 else image
        if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
            image = image.convert("I").point(lambda level: level / 257 + 0.5).convert("L")
        if image.has_transparency_data:
            ground = pillow().new("RGBA", image.size, "white")
            ground.alpha_composite(image.convert("RGBA"))
            image = ground
        return image.convert("RGB")


def size_of(picture) -> tuple[int, int]:
    """(width, height) of a picture or an open one, upright; only its header is read. ValueError: as open_picture, but
    for what its pixels would show."""
    if not isinstance(picture, str | bytes):
        return picture.size
    with reading(picture) as file:
        return opened(file)[2]


def check_pictures(row: dict) -> None:
    """ValueError, one line: the first picture that is missing, no picture, too large or too thin, by its header."""
    for i, picture in enumerate(row.get("images", ()), 1):
        try:
            size_of(picture)
        except ValueError as error:
            raise ValueError(f"picture {i}: {error}") from None


def controls(rows: list[dict]) -> dict[str, list[dict]]:
    """The problems with pictures, asked of another problem's picture and of a grey one: who looks is wrong there.

    Only pictures of the same size change places, so that prompts stay as they are; a problem that no other such picture
    is left for has no first control. {} without pictures.
    """
    rows, sizes = [row for row in rows if "images" in row], {}
    for row in rows:
        sizes.setdefault(tuple(map(size_of, row["images"])), []).append(row)
    swapped = []
    for alike in sizes.values():
        for i, row in enumerate(alike):
            following = (each["images"] for each in (*alike[i + 1 :], *alike[:i]))
            if other := next((images for images in following if images != row["images"]), None):
                swapped.append(row | {"images": other})
    grey = [row | {"images": [grey_of(size_of(each)) for each in row["images"]]} for row in rows]
    part = f" ({len(swapped)} of {len(rows)})" * (len(swapped) < len(rows))
    found = {f"with another picture{part}": swapped, "with a grey picture": grey}
    return {name: problems for name, problems in found.items() if problems}


def preview(row: dict) -> dict:
    """What shows a row's pictures and boxes to people: "images", small, as data:image/webp;base64,… and "box_size", the
    (width, height) of a picture in the boxes' units, if the row has it. {} without pictures."""
    shown = []
    for picture in row.get("images", ()):
        image = open_picture(picture)
        image.thumbnail((PREVIEW, PREVIEW))
        image.save(file := io.BytesIO(), "WEBP", quality=90)
        shown.append("data:image/webp;base64," + b64encode(file.getvalue()).decode())
    sizes = {"box_size": row["box_size"]} if "box_size" in row else {}
    return {"images": shown} | sizes if shown else {}


def box_shares(text: str, size: tuple[int, int]) -> list[float] | None:
    """The box of a text as shares of the picture's width and height, where the picture is `size` in the box's units."""
    box = find_box(text)[1]
    return [x / n for x, n in zip(box, (*size, *size), strict=True)] if box else None


def grey_of(size: tuple[int, int]) -> bytes:
    """An encoded picture that shows nothing."""
    pillow().new("RGB", size, (128, 128, 128)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def in_model_units(rows: list[dict], scale: str, processor: "Processor") -> list[dict]:
    """The rows with their gold boxes, given in the units GOLD_SIZES[scale], in those in which the model states boxes,
    and with "box_size", a picture's (width, height) in these. Rows without a picture or a box stay as they are.
    ValueError: no row has a picture and a box, one has several pictures, or as Processor.box_size."""
    boxes = [find_box(row["answer"])[1] if "images" in row else None for row in rows]
    if not any(boxes):
        raise ValueError(f"--box-scale {scale}: no row has a picture and a box as its answer; leave it out")
    converted = []
    for i, (row, box) in enumerate(zip(rows, boxes, strict=True), 1):
        if box:
            if len(row["images"]) > 1:
                raise ValueError(f"--box-scale: problem {i} has a box, but {len(row['images'])} pictures; give one")
            old, new = GOLD_SIZES[scale] or size_of(row["images"][0]), processor.box_size(row["images"][0])
            x1, y1, x2, y2 = (round(x * n / o, 3) for x, o, n in zip(box, old * 2, new * 2, strict=True))
            answer = row["answer"] if old == new else f"({x1},{y1}),({x2},{y2})"
            row = row | {"answer": answer, "box_size": new}
        converted.append(row)
    return converted


class Processor:
    """What a model makes of problems with pictures: `prompt` its token ids, `features` the rest of its input."""

    def __init__(self, family, config) -> None:
        """family: the processor of the model's family; config: the model's."""
        self.family, self.tokenizer, self.image_processor = family, family.tokenizer, family.image_processor
        self.image_id, self.model_type = config.image_token_id, config.model_type
        name = self.tokenizer.convert_ids_to_tokens
        self.reserved = {*family.all_special_multimodal_tokens, name(self.image_id)}  # stand for pictures, films
        ends = [getattr(config, f"vision_{end}_token_id", None) for end in ("start", "end")]
        start, end = ("", "") if None in ends else map(name, ends)
        self.placeholder = start + family.image_token + end  # where no chat template writes it
        self.layout = lru_cache(4096)(self._layout)
        self.remembered = lru_cache(64)(self.features)  # of tuples of encoded pictures: the update needs them again
        self.ahead, self.lock = None, Lock()  # the future that makes the next step's; the tokenizer serves one thread
        images, self.pixels_per_token = self.image_processor, None  # None: all pictures have one size
        if "max_pixels" in images.valid_kwargs.__annotations__:
            self.pixels_per_token = (images.patch_size * images.merge_size) ** 2

    def prompt(self, problem: str, pictures: list, system="", suffix="", template=None, turns=(), template_args=None):
        """The prompt's token ids, as tasks.prompts.encode_prompt makes them, with as many image tokens at each MARK as
        the picture there has features. pictures: opened or not; only their sizes matter.
        ValueError: marks and pictures differ in number, the text holds a token that stands for a picture, the chat
        template drops something, or the prompt ends on a picture."""
        pieces = (problem + suffix).split(MARK) if pictures else [problem + suffix]
        if len(pieces) - 1 != len(pictures):
            raise ValueError(f"{MARK} is {len(pieces) - 1} times in the text, but there are {len(pictures)} pictures")
        for token in sorted(self.reserved):
            if any(token in text for text in (*pieces, system, *(turn["content"] for turn in turns))):
                raise ValueError(f"the text holds {token!r}, which stands for a picture in the model's prompts")

        texts = self._text(pieces, system, template, turns, template_args).split(self.family.image_token)
        expansions = [self.layout(size_of(picture))[0] for picture in pictures] + [""]
        if len(texts) != len(expansions):
            raise ValueError("the template holds a token for a picture, whose place is <image> in the problem")
        ids = encode_text(self.tokenizer, "".join(a + b for a, b in zip(texts, expansions, strict=True)))
        if ids[-1] == self.image_id:
            raise ValueError("the prompt ends on a picture; let text follow it")
        return ids

    def _text(self, pieces: list[str], system: str, template: str | None, turns, template_args) -> str:
        """The prompt as text, with one image token between every two pieces of the user's message."""
        user = MARK.join(pieces)

        def spelled(text: str) -> str:
            return text.replace(MARK, self.placeholder) if len(pieces) > 1 else text

        def parts(text: str) -> list[dict]:
            """The content of a message as most chat templates of these models want it."""
            texts = text.split(MARK) if len(pieces) > 1 else [text]
            return [p for t in texts for p in ({"type": "image"}, {"type": "text", "text": t})][1:]

        if template is not None and MARK in template:  # it says where the picture goes
            user = user.replace(MARK, "", 1)
            template = template.replace(MARK, self.placeholder if len(pieces) > 1 else "", 1)
        if template is not None or not self.tokenizer.chat_template:
            return plain_text(spelled(user), system, template, turns)
        for content in (parts, spelled):
            try:
                text = chat_text(self.tokenizer, user, system, turns, template_args, content)
            except ValueError:
                continue
            if text.count(self.family.image_token) == len(pieces) - 1 and all(p.strip() in text for p in pieces):
                return text
        raise ValueError("the model's chat template drops a picture or text of the problem; give a --template")

    def features(self, pictures: list[str | bytes]) -> dict:
        """What the model's processor makes of the pictures of one prompt, as float32 tensors on the CPU; {}: of none.
        ValueError: as open_picture."""
        if not pictures:
            return {}
        images = [open_picture(picture) for picture in pictures]
        with self.lock:
            made = self.family(images=images, text=[self.family.image_token * len(images)], return_tensors="pt")
        ours = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
        return {name: value for name, value in made.items() if name not in ours}

    def _layout(self, size: tuple[int, int]) -> tuple[str, tuple[int, int]]:
        """What a picture of this (width, height) becomes -> (its text in a prompt, its (width, height) for the model).
        Pixels don't matter, so a blank picture tells."""
        blank = pillow().new("RGB", size)
        made = self.family(images=[blank], text=[self.family.image_token], return_text_replacement_offsets=True)
        expansion = made["text_replacement_offsets"][0][0]["replacement"]
        if "image_grid_thw" in made:
            _, height, width = (int(n) * self.image_processor.patch_size for n in made["image_grid_thw"][0])
        else:
            *_, height, width = made["pixel_values"][0].shape
        return expansion, (width, height)

    def resized(self, picture) -> tuple[int, int]:
        """(width, height) of a picture, or of a tile if it is cut into some, as the model gets it: pixels."""
        return self.layout(size_of(picture))[1]

    def box_size(self, picture) -> tuple[int, int]:
        """The (width, height) of a picture in the units in which the model states boxes: 1000 x 1000 for Qwen2-VL and
        Qwen3-VL, and for Qwen2.5-VL its pixels once resized. ValueError: they are not known for this family."""
        if self.model_type not in BOX_SIZES:
            known = f"only those of {', '.join(BOX_SIZES)}"
            raise ValueError(f"the units in which {self.model_type} states boxes are not known, {known}")
        return BOX_SIZES[self.model_type] or self.resized(picture)

    def picture_tokens(self, ids: list[int]) -> int:
        """How many tokens of a prompt are pictures."""
        return ids.count(self.image_id)

    def fitting_pixels(self, ids: list[int], pictures: list, max_prompt_tokens: int) -> int | None:
        """A --max-pixels with which a prompt fits, or None; thin pictures take more tokens than their pixels say."""
        room, images = max_prompt_tokens - len(ids) + self.picture_tokens(ids), self.image_processor

        def fits(limit: int) -> bool:
            patches = [images.get_number_of_image_patches(*size_of(x)[::-1], {"max_pixels": limit}) for x in pictures]
            return limit >= images.size["shortest_edge"] and sum(patches) <= room * images.merge_size**2

        most = max(0, room) // len(pictures) * (self.pixels_per_token or 0)
        return next(filter(fits, (most >> halvings for halvings in range(most.bit_length()))), None)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes what AutoProcessor, AutoImageProcessor and AutoTokenizer read."""
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        options = {name: value for name, value in self.family.to_dict().items() if value is not None}
        options.pop("image_processor")  # it has its own file
        (Path(folder) / "processor_config.json").write_text(json.dumps(options, indent=2) + "\n")


def load_processor(
    folder, *, min_pixels: int | None = None, max_pixels: int | None = None, needed: bool = False, trust: bool = False
):
    """The Processor of a model's folder or name on the hub; None: the model reads text only, or no more is
    needed and its processor does not load. min_pixels, max_pixels: pictures are resized to have so many. needed: there
    are pictures. trust: code that comes with the model may run. ValueError: pictures or limits of theirs for a model
    that reads text only, whose pictures all have one size, or whose folder lacks what its processor needs."""
    from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    limits = {name: n for name, n in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if n is not None}
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust)
    kind = PROCESSOR_MAPPING.get(type(config), None)
    lacking = hasattr(kind, "_backends")  # torchvision, say: then all that is asked of it raises
    if kind is None or not lacking and "image_processor" not in kind.get_attributes():
        if needed or limits:
            what = "rows have pictures" if needed else "--min-pixels, --max-pixels limit pictures"
            raise ValueError(f"{what}, but {folder} reads text only; --model names one that reads pictures")
        return None
    pillow()

    class WithoutFilm(kind):
        """The part for video alone needs torchvision, so it may be None."""

        def check_argument_for_proper_class(self, name, argument):
            return None if argument is None else super().check_argument_for_proper_class(name, argument)

    WithoutFilm.__name__ = kind.__name__  # which is saved
    try:
        images = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=trust, **limits)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust)
        options, _ = kind.get_processor_dict(folder)
        parts = {"image_processor": images, "tokenizer": tokenizer}
        family = WithoutFilm.from_args_and_dict([parts.get(name) for name in kind.get_attributes()], options)
        processor = Processor(family, config)
    except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
        if not (needed or limits):
            return None  # text needs none
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{folder} reads pictures, but its processor does not load ({reason})") from None
    if isinstance(family.chat_template, str):  # older folders keep it apart from the tokenizer
        tokenizer.chat_template = family.chat_template
    if limits and not processor.pixels_per_token:
        raise ValueError(f"--min-pixels, --max-pixels: {folder} has one size for all pictures")
    if limits and (low := images.size["shortest_edge"]) > (high := images.size["longest_edge"]):
        raise ValueError(f"--max-pixels {high} is below the least, {low}; --min-pixels changes that")
    return processor
