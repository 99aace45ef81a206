"""tasks/pictures.py: broken and odd pictures, and the processors of seven families against transformers' own."""

import base64
import importlib.util
import io
import json
import os
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from test_data import one_line
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

import rewards
from grader.boxes import find_box
from tasks import data, pictures
from tasks.pictures import load_processor
from tasks.prompts import encode_prompt

Image = pytest.importorskip("PIL.Image")
REAL = Path(__file__).parents[3] / "shared" / "data" / "pictures"


def noise(width=32, height=24, mode="RGB", seed=0):
    """A picture of random pixels."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


def as_bytes(image, kind="PNG", **options):
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


# ------------------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_picture_is_read_from_a_file_or_from_its_bytes(tmp_path, kind):
    coded = as_bytes(noise(), kind)
    (tmp_path / "a").write_bytes(coded)
    for picture in (coded, str(tmp_path / "a")):
        image = pictures.open_picture(picture)
        assert (image.mode, image.size) == ("RGB", (32, 24)) and pictures.encoded(picture) == coded
        assert pictures.size_of(picture) == (32, 24)
    if kind in ("PNG", "WEBP", "BMP", "TIFF", "PPM"):
        exact = as_bytes(noise(), kind, lossless=True) if kind == "WEBP" else coded
        assert pictures.open_picture(exact).tobytes() == noise().tobytes()


def test_modes_become_rgb():
    grey = noise(mode="L")
    for mode in ("L", "1", "P", "CMYK"):
        kind = "TIFF" if mode == "CMYK" else "PNG"
        picture = pictures.open_picture(as_bytes(noise(mode=mode), kind))
        assert picture.tobytes() == noise(mode=mode).convert("RGB").tobytes()
    deep = Image.fromarray(np.array([[0, 257, 32768, 65535]], dtype=np.uint16))
    assert deep.mode == "I;16"
    for kind in ("PNG", "TIFF"):  # Pillow alone would make all above 255 white
        picture = pictures.open_picture(as_bytes(deep, kind))
        assert [picture.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 1, 128, 255)]
    for mode in ("RGBA", "LA"):  # black on nothing is black on white, not black on black
        clear = Image.new(mode, (2, 1), 0)
        clear.putpixel((1, 0), (0, 0, 0, 255)[-len(mode) :])
        picture = pictures.open_picture(as_bytes(clear))
        assert [picture.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]
    palette = Image.new("P", (2, 1), 0)
    assert pictures.open_picture(as_bytes(palette, transparency=0)).getpixel((0, 0)) == (255, 255, 255)
    assert pictures.open_picture(as_bytes(grey, transparency=grey.getpixel((0, 0)))).getpixel((0, 0)) == (255,) * 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_the_camera_was_held(kind, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    told = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    coded = as_bytes(noise(16, 8), kind, **told)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(coded)))
    picture = pictures.open_picture(coded)
    assert picture.tobytes() == upright.convert("RGB").tobytes()
    assert pictures.size_of(coded) == picture.size == ((16, 8) if orientation < 5 else (8, 16))


def bomb(width=100_000, height=100_000):
    """A PNG of a few bytes that says that it has so many pixels."""
    coded = bytearray(as_bytes(Image.new("1", (8, 8))))
    coded[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    coded[29:33] = zlib.crc32(coded[12:29]).to_bytes(4, "big")
    return bytes(coded)


BROKEN = {
    "missing": ("absent.png", "no such file"),
    "a folder": (".", "no such file"),
    "a pipe": ("pipe", "no such file"),
    "nothing": (b"", "not a picture (JPEG, PNG"),
    "text": (b"<html>404</html>", "not a picture (JPEG, PNG"),
    "a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    "a bomb": (bomb(), "bomb"),
    "above Pillow's first limit": (bomb(10_000, 9_000), "bomb"),
    "too thin": (as_bytes(Image.new("L", (201, 1))), "201 x 1 pixels: one side is more than 200 times"),
    "too tall": (as_bytes(Image.new("L", (2, 402))), "2 x 402 pixels"),
}
CUT = {kind: as_bytes(noise(64, 64), kind)[:-500] for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_picture_is_one_line(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    picture, wanted = BROKEN[name]
    picture = str(tmp_path / picture) if isinstance(picture, str) else picture
    named = repr(picture) if isinstance(picture, str) else f"picture of {len(picture)} bytes"
    for read in (
        pictures.open_picture,
        pictures.size_of,
        lambda picture: pictures.check_pictures({"images": [picture]}),
    ):
        begun = time.monotonic()
        with pytest.raises(ValueError) as caught:
            read(picture)
        assert named in one_line(caught) and wanted in one_line(caught) and time.monotonic() - begun < 1
    with pytest.raises(ValueError, match=r"^picture 2: "):
        pictures.check_pictures({"images": [as_bytes(noise()), picture]})


@pytest.mark.parametrize("kind", CUT)
def test_a_picture_that_is_cut_off_is_one_line(kind):
    with pytest.raises(ValueError) as caught:
        pictures.open_picture(CUT[kind])
    assert one_line(caught).startswith(f"picture of {len(CUT[kind])} bytes: ")


def test_random_damage_is_never_another_error():
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "PPM"):
        for _ in range(40):
            coded = bytearray(as_bytes(noise(16, 16), kind))
            for place in rng.integers(0, len(coded), 5):
                coded[place] = rng.integers(256)
            try:
                assert pictures.open_picture(bytes(coded)).mode == "RGB"
            except ValueError as error:
                assert "\n" not in str(error)


def test_a_file_is_read_up_to_a_limit(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(as_bytes(noise()))
    monkeypatch.setattr(pictures, "MAX_BYTES", 100)
    for read in (pictures.open_picture, pictures.encoded):
        with pytest.raises(ValueError, match="at most 100 are read"):
            read(str(tmp_path / "a.png"))


def test_without_pillow_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ValueError, match="pip install pillow"):
        pictures.open_picture(b"")
    (tmp_path / "rows.jsonl").write_text('{"problem": "p", "answer": "a"}\n')
    assert data.load(str(tmp_path / "rows.jsonl"))[1] == 0  # text needs none


def test_a_digest_tells_pictures_apart_but_not_how_they_are_kept(tmp_path):
    a, b = as_bytes(noise()), as_bytes(noise(seed=1))
    (tmp_path / "a").write_bytes(a)
    assert pictures.digest([a, b]) == pictures.digest([str(tmp_path / "a"), b])
    assert len({pictures.digest(some) for some in ([], [a], [b], [a, b], [b, a], [a, a], [a + b])}) == 7


def test_a_picture_is_a_path_bytes_or_base64(tmp_path):
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        coded = as_bytes(noise(16, 8), kind)
        text = base64.b64encode(coded).decode()
        wrapped = base64.encodebytes(coded).decode()
        for value in (coded, text, wrapped, text.rstrip("="), f"data:image/png;base64,{text}"):
            assert pictures.picture_of(value, tmp_path) == coded
        for value in ({"bytes": coded, "path": "a.png"}, {"bytes": text, "path": None}, {"url": text}):
            assert pictures.picture_of(value, tmp_path) == coded
    for value in ("i/a.png", {"bytes": None, "path": "i/a.png"}, {"path": "i/a.png"}, "i/../i/a.png"):
        assert pictures.picture_of(value, tmp_path) == str(tmp_path / "i/a.png")
    assert (
        pictures.picture_of("/9j/a.png", tmp_path) == pictures.picture_of("file:///9j/a.png", tmp_path) == "/9j/a.png"
    )
    for wrong in (5, "", None, {}, {"bytes": None, "path": None}, ["a.png"], "https://x.org/a.png", "data:text/x,a"):
        with pytest.raises(ValueError) as caught:
            pictures.picture_of(wrong, tmp_path)
        assert "a picture is" in one_line(caught)


# ----------------------------------------------------------------------------------------------- processors of families

TILES = ["<fake_token_around_image>", "<end_of_utterance>", "<global-img>"]
TILES += [f"<row_{i}_col_{j}>" for i in range(1, 7) for j in range(1, 7)]
PAD, START, END, FILM = "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>"
KINDS = {  # configuration, image processor, special tokens (the first is the config's), how a template spells a picture
    "qwen2_vl": ("Qwen2VLConfig", "Qwen2VL", [PAD, START, END, FILM], START + PAD + END),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", "Qwen2VL", [PAD, START, END, FILM], START + PAD + END),
    "qwen3_vl": ("Qwen3VLConfig", "Qwen2VL", [PAD, START, END, FILM], START + PAD + END),
    "gemma3": ("Gemma3Config", "Gemma3", ["<soft>", "<boi>", "<eoi>"], "<boi>"),
    "llava": ("LlavaConfig", "CLIP", ["<image>"], "<image>"),
    "idefics3": ("Idefics3Config", "Idefics3", ["<image>", *TILES], "<image>"),
    "smolvlm": ("SmolVLMConfig", "SmolVLM", ["<image>", *TILES, "<video>"], "<image>"),
}
SQUARE, TILED = {"height": 16, "width": 16}, {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 16}}
IMAGES = {
    "Qwen2VL": {"size": {"shortest_edge": 64, "longest_edge": 4096}, "patch_size": 4, "temporal_patch_size": 1},
    "Gemma3": {"size": SQUARE},
    "CLIP": {"size": {"shortest_edge": 16}, "crop_size": SQUARE},
    "Idefics3": TILED,
    "SmolVLM": TILED,
}
OPTIONS = {"gemma3": {"image_seq_length": 4}, "idefics3": {"image_seq_len": 4}, "smolvlm": {"image_seq_len": 4}}
OPTIONS["llava"] = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{% for c in m.content %}"
    "{% if c.type == 'image' %}PICTURE{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def make_tokenizer(kind="llava", template=CHAT, bos=False):
    """Bytes, and the special tokens of the family."""
    special, spelling = KINDS[kind][2:]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>", *special])
    if bos:
        around = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))])
        tokenizer.post_processor = around
    extra = dict(zip(("image_token", "boi_token", "eoi_token"), special, strict=True)) if kind == "gemma3" else {}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        chat_template=template and template.replace("PICTURE", spelling),
        extra_special_tokens=extra,
    )


def make_folder(folder, kind, **options):
    """A model's folder without weights: all that a processor reads."""
    config, images, special, _ = KINDS[kind]
    tokenizer = make_tokenizer(kind, **options)
    ids = {"image_token_id": special[0]}
    if PAD in special:
        ids |= {"vision_start_token_id": START, "vision_end_token_id": END, "video_token_id": FILM}
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in ids.items()}
    getattr(transformers, config)(**ids).save_pretrained(folder)
    getattr(transformers, f"{images}ImageProcessorPil")(**IMAGES[images]).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kind in OPTIONS:
        (folder / "processor_config.json").write_text(json.dumps(OPTIONS[kind]))
    return folder


@pytest.fixture(autouse=True)
def words(monkeypatch):
    """SmolVLM's processor refuses to exist without the package num2words, which only films need."""
    from transformers.models.smolvlm import processing_smolvlm

    monkeypatch.setattr(processing_smolvlm, "num2words", str)


def own(folder, kind):
    """transformers' own processor; where it insists on a part for films, made of its parts without that one."""
    try:
        return transformers.AutoProcessor.from_pretrained(folder, backend="pil")
    except ImportError:  # for films, without torchvision
        assert "qwen" in kind or kind == "smolvlm"
    made = getattr(transformers, KINDS[kind][0].replace("Config", "Processor"))
    parts = {
        "image_processor": transformers.AutoImageProcessor.from_pretrained(folder, backend="pil"),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder),
        "video_processor": None,
    }
    check = transformers.ProcessorMixin.check_argument_for_proper_class
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "check_argument_for_proper_class", lambda self, name, x: x is None or check(self, name, x))
        return made(**parts, **OPTIONS.get(kind, {}))


SIZES = [(32, 24), (20, 50), (90, 7), (64, 64), (3, 50), (1, 1)]
PROMPTS = [  # a problem, its pictures by their places in SIZES, and the same as a chat in parts
    ("see <image> and\n<image><image>\nwhat?", [0, 1, 2], ["see ", None, " and\n", None, None, "\nwhat?"]),
    ("<image>\n\nwhat?", [3], [None, "\n\nwhat?"]),
    ("what? <image>", [4], ["what? ", None]),
    ("what?\n\n<image>\n\n<image>", [5, 0], ["what?\n\n", None, "\n\n", None]),
    ("what?", [], ["what?"]),
]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_and_features_are_those_of_the_familys_own_processor(tmp_path, kind, bos):
    folder = make_folder(tmp_path, kind, bos=bos)
    processor, reference = load_processor(folder), own(folder, kind)
    for problem, places, contents in PROMPTS:
        images = [noise(*SIZES[i], seed=i) for i in places]
        coded = [as_bytes(image) for image in images]
        parts = [{"type": "text", "text": c} if c is not None else {"type": "image"} for c in contents]
        chat = [{"role": "system", "content": [{"type": "text", "text": "Look."}]}, {"role": "user", "content": parts}]
        text = reference.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        expected = reference(text=[text], images=images or None, return_tensors="pt")

        ids = processor.prompt(problem, coded, system="Look.")
        assert ids == expected["input_ids"][0].tolist()
        assert ids == processor.prompt(problem, images, system="Look.")  # opened or not
        features = processor.features(coded)
        text_only = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
        assert features.keys() == expected.keys() - text_only and (not images) == (not features)
        assert all(torch.equal(features[name], expected[name]) for name in features)
        assert all(torch.equal(value, processor.features(coded)[name]) for name, value in features.items())
        types = expected.get("mm_token_type_ids", expected.get("token_type_ids"))
        if types is not None and kind != "idefics3":  # which marks what stands around a picture, too
            assert processor.picture_tokens(ids) == int(types.sum())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded_again_as_the_same(tmp_path, kind):
    processor = load_processor(make_folder(tmp_path / "a", kind))
    processor.save_pretrained(tmp_path / "b")
    transformers.AutoConfig.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    again, coded = load_processor(tmp_path / "b"), [as_bytes(noise(40, 30))]
    assert again.prompt("<image>?", coded) == processor.prompt("<image>?", coded)
    assert all(torch.equal(v, processor.features(coded)[k]) for k, v in again.features(coded).items())
    theirs = own(tmp_path / "b", kind)
    assert type(theirs.image_processor) is type(processor.image_processor)
    assert theirs.tokenizer.chat_template == processor.tokenizer.chat_template
    assert "processor_class" in json.loads((tmp_path / "b" / "processor_config.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_text_alone_is_encoded_as_without_pictures(tmp_path, kind):
    processor = load_processor(make_folder(tmp_path, kind, template=None, bos=True))
    for options in ({}, {"system": "Be brief."}, {"suffix": " Now."}, {"template": "<s>{problem}:"}):
        assert processor.prompt("1+1", [], **options) == encode_prompt(processor.tokenizer, "1+1", **options)


def test_a_template_of_the_users_spells_pictures_as_the_model_needs_them(tmp_path):
    processor = load_processor(make_folder(tmp_path / "a", "qwen2_vl"))
    ids = processor.prompt("<image>How many?", [noise(16, 8)], template="User: {problem}\nA:")
    assert processor.tokenizer.decode(ids) == f"User: {START}{PAD * 2}{END}How many?\nA:"
    plain = load_processor(make_folder(tmp_path / "b", "gemma3", template=None))
    ids = plain.prompt("<image>How many?", [noise()])
    assert plain.tokenizer.decode(ids) == f"Question: \n\n<boi>{'<soft>' * 4}<eoi>\n\nHow many?\nAnswer:"


def test_a_chat_template_for_text_alone_gets_the_pictures_as_text(tmp_path):
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content + '' }}{% endfor %}[assistant]"
    processor = load_processor(make_folder(tmp_path, "qwen2_vl", template=template))
    ids = processor.prompt("a<image>b", [noise(8, 8)], system="s")
    assert processor.tokenizer.decode(ids) == f"[system]s[user]a{START}{PAD}{END}b[assistant]"


WRONG = {
    "a mark too few": ("see", 1, {}, "<image> is 0 times in the text, but there are 1 pictures"),
    "a mark too many": ("<image><image>a", 1, {}, "<image> is 2 times in the text, but there are 1 pictures"),
    "the picture's token typed": ("<image>a <|image_pad|>", 1, {}, "the text holds '<|image_pad|>'"),
    "the same without a picture": ("a <|image_pad|>", 0, {}, "the text holds '<|image_pad|>'"),
    "a film's token": ("a <|video_pad|>", 0, {}, "the text holds '<|video_pad|>'"),
    "the token in the system prompt": ("a", 0, {"system": "<|image_pad|> is"}, "the text holds '<|image_pad|>'"),
    "the token in a template": ("<image>a", 1, {"template": "<|image_pad|>{problem}"}, "the template holds a token"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_prompt_is_one_line(tmp_path, name):
    problem, num, options, wanted = WRONG[name]
    processor = load_processor(make_folder(tmp_path, "qwen2_vl"))
    with pytest.raises(ValueError) as caught:
        processor.prompt(problem, [noise()] * num, **options)
    assert wanted in one_line(caught)


def test_a_prompt_that_ends_on_a_picture_or_loses_one_is_one_line(tmp_path):
    processor = load_processor(make_folder(tmp_path / "a", "llava"))
    with pytest.raises(ValueError, match="ends on a picture"):
        processor.prompt("see <image>", [noise()], template="{problem}")
    with pytest.raises(ValueError, match="the text holds '<image>'"):  # plain text for others, not for this model
        processor.prompt("the tag <image>", [])
    deaf = load_processor(make_folder(tmp_path / "b", "llava", template="{{ messages[0].role }}"))
    with pytest.raises(ValueError, match="drops a picture or text"):
        deaf.prompt("see <image>", [noise()])


@pytest.mark.parametrize("size", [(64, 48), (400, 8), (8, 400), (1200, 8)], ids=str)
def test_the_limit_of_pixels_that_is_advised_fits(tmp_path, size):
    """A thin picture is one token high at least, so it has more tokens than its pixels say."""
    folder, coded = make_folder(tmp_path, "qwen2_vl"), [as_bytes(noise(*size)), as_bytes(noise(16, 16))]
    processor, problem = load_processor(folder), "<image><image>?"
    ids, found = processor.prompt(problem, coded), 0
    for less in range(1, processor.picture_tokens(ids) + 1, 4):
        if limit := processor.fitting_pixels(ids, coded, len(ids) - less):
            found += 1
            assert len(load_processor(folder, max_pixels=limit).prompt(problem, coded)) <= len(ids) - less
    assert found > 9
    high = load_processor(folder, min_pixels=64 * 48)  # the least, below which --max-pixels is refused
    assert high.fitting_pixels(high.prompt(problem, coded), coded, 40) is None


def test_limits_of_pixels(tmp_path):
    folder, coded = make_folder(tmp_path / "a", "qwen2_vl"), [as_bytes(noise(64, 48))]
    processor = load_processor(folder)
    assert pictures.size_of(coded[0]) == processor.resized(coded[0]) == (64, 48)
    ids = processor.prompt("<image>?", coded)
    assert processor.picture_tokens(ids) == 8 * 6  # a token is 2 x 2 patches of 4 x 4 pixels
    room = len(ids) - 48 + 10
    limit = processor.fitting_pixels(ids, coded, room)
    assert limit == 640 and processor.fitting_pixels(ids, coded, room - 10) is None
    smaller = load_processor(folder, max_pixels=limit)
    assert len(smaller.prompt("<image>?", coded)) <= room
    assert smaller.resized(coded[0]) == (24, 16)
    assert smaller.features(coded)["pixel_values"].shape == (24, 48)
    with pytest.raises(ValueError, match="--max-pixels 4096 is below the least, 12288"):
        load_processor(folder, min_pixels=128 * 96)
    larger = load_processor(folder, min_pixels=128 * 96, max_pixels=20_000)
    assert larger.resized(coded[0]) == (128, 96)
    smaller.save_pretrained(tmp_path / "b")
    transformers.AutoConfig.from_pretrained(folder).save_pretrained(tmp_path / "b")
    assert load_processor(tmp_path / "b").resized(coded[0]) == smaller.resized(coded[0])
    with pytest.raises(ValueError, match="has one size for all pictures"):
        load_processor(make_folder(tmp_path / "c", "llava"), max_pixels=100)


def test_a_model_for_text_says_so_where_pictures_are_asked_of_it(tmp_path):
    transformers.LlamaConfig().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert load_processor(tmp_path) is None
    for asked in ({"needed": True}, {"max_pixels": 100}, {"min_pixels": 100}):
        with pytest.raises(ValueError) as caught:
            load_processor(tmp_path, **asked)
        assert f"{tmp_path} reads text only; --model" in one_line(caught)


def test_a_folder_without_what_its_processor_needs_is_one_line(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, "qwen2_vl")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "PIL", None)
        with pytest.raises(ValueError, match="pip install pillow"):
            load_processor(folder)
    (folder / "preprocessor_config.json").unlink()
    assert load_processor(folder) is None  # rows of text need none
    with pytest.raises(ValueError) as caught:
        load_processor(folder, needed=True)
    assert f"{folder} reads pictures, but its processor does not load" in one_line(caught)


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed")
def test_a_processor_that_needs_torchvision_is_missed_by_pictures_alone(tmp_path):
    transformers.Mistral3Config().save_pretrained(tmp_path)
    assert load_processor(tmp_path) is None
    with pytest.raises(ValueError) as caught:
        load_processor(tmp_path, needed=True)
    assert f"{tmp_path} reads pictures, but its processor does not load" in one_line(caught)


def test_the_chat_template_of_an_older_folder_is_found(tmp_path):
    folder = make_folder(tmp_path, "qwen2_vl", template=None)
    text = CHAT.replace("PICTURE", START + PAD + END)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": text}))
    processor = load_processor(folder)
    assert processor.tokenizer.decode(processor.prompt("<image>?", [noise(8, 8)])).startswith(f"[user]{START}{PAD}")


def test_layouts_are_made_once_a_size(tmp_path):
    processor = load_processor(make_folder(tmp_path, "idefics3"))
    for seed in range(5):
        processor.prompt("<image>?", [noise(seed=seed)])
    assert processor.layout.cache_info().misses == 1


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared")
def test_real_pictures(tmp_path):
    rows, bad = data.load(str(REAL / "mathvision_24.jsonl"))
    assert bad == 0 and len(rows) == 24 and all(len(row["images"]) == 1 for row in rows)
    processor = load_processor(make_folder(tmp_path, "qwen2_vl"), max_pixels=64 * 64)
    for row in rows:
        ids, features = processor.prompt(row["problem"], row["images"]), processor.features(row["images"])
        assert processor.picture_tokens(ids) * 4 == len(features["pixel_values"]) <= 256
    assert len({tuple(row["images"]) for row in rows}) == 24


def test_trap_6_controls_are_anothers_picture_of_the_same_size_and_a_grey_one():
    shown = [as_bytes(noise(seed=seed)) for seed in range(3)] + [as_bytes(noise(16, 8, seed=seed)) for seed in range(2)]
    rows = [{"problem": f"{i}?", "images": [picture]} for i, picture in enumerate(shown)] + [{"problem": "text"}]
    found = pictures.controls(rows)
    assert list(found) == ["with another picture", "with a grey picture"]
    for control in found.values():
        assert sorted(row["problem"] for row in control) == ["0?", "1?", "2?", "3?", "4?"]
    for row in found["with another picture"]:
        own = shown[int(row["problem"][0])]
        assert row["images"] != [own] and row["images"][0] in shown
        assert pictures.size_of(row["images"][0]) == pictures.size_of(own)
    for row in found["with a grey picture"]:
        grey = pictures.open_picture(row["images"][0])
        assert grey.getcolors() == [(grey.width * grey.height, (128, 128, 128))]
        assert grey.size == pictures.size_of(shown[int(row["problem"][0])])
    assert pictures.controls([{"problem": "text"}]) == {}
    # several questions about one picture, and a picture whose size no other has
    shown = [shown[0], shown[0], shown[0], shown[1], shown[3]]
    rows = [{"problem": f"{i}?", "images": [picture]} for i, picture in enumerate(shown)]
    swapped = pictures.controls(rows)["with another picture (4 of 5)"]
    assert [(row["problem"], row["images"]) for row in swapped] == [
        (f"{i}?", [other]) for i, other in enumerate([shown[3]] * 3 + [shown[0]])
    ]
    assert list(pictures.controls(rows[-1:])) == ["with a grey picture"]


# --------------------------------------------------------------------------------------------------------------- boxes


def in_units(folder, kind, scale, answer, size=(200, 100), count=1):
    rows = [
        {"problem": "?", "answer": answer, "images": [as_bytes(noise(*size))] * count},
        {"problem": "?", "answer": "2"},
    ]
    return pictures.in_model_units(rows, scale, load_processor(make_folder(folder, kind)))


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    ("scale", "answer"),
    [
        ("thousand", "(250,250),(750,750)"),
        ("unit", "[0.25, 0.25, 0.75, 0.75]"),
        ("pixels", "<answer> (50,25),(150,75) </answer>"),  # of 200 x 100
    ],
)
def test_a_gold_box_is_brought_into_the_models_units(tmp_path, kind, scale, answer):
    row, text = in_units(tmp_path, kind, scale, answer)
    assert text == {"problem": "?", "answer": "2"}
    if kind == "qwen2_5_vl":
        # 20,000 pixels become at most 4,096 in steps of 8: 200 and 100 over 2.21 are 90.5 and 45.3, so 88 x 40
        assert row["box_size"] == (88, 40) and row["answer"] == "(22.0,10.0),(66.0,30.0)"
    else:
        assert row["box_size"] == (1000, 1000) and find_box(row["answer"]) == ("one", (250, 250, 750, 750))
        assert scale != "thousand" or row["answer"] == answer  # as the file spells it: sft trains on it


def test_the_overlap_is_that_of_the_pictures(tmp_path):
    """Each axis is scaled by itself, so an IoU stays what it was."""
    gold, said = "(10,10),(110,60)", (20, 20, 120, 70)  # 90 * 40 shared of 2 * 5000 - 3600
    assert rewards.iou(str(list(said)), gold) == pytest.approx(3600 / 6400, rel=1e-12)
    row, _ = in_units(tmp_path, "qwen2_5_vl", "pixels", gold)
    scaled = [x * n / o for x, n, o in zip(said, (88, 40) * 2, (200, 100) * 2, strict=True)]
    assert rewards.iou(str(scaled), row["answer"]) == pytest.approx(3600 / 6400, rel=1e-4)


@pytest.mark.parametrize(
    ("kind", "answer", "count", "words"),
    [
        ("qwen2_vl", "three", 1, "--box-scale pixels: no row has a picture and a box as its answer"),
        ("qwen2_vl", "(1,1),(2,2)", 2, "problem 1 has a box, but 2 pictures"),
        ("gemma3", "(1,1),(2,2)", 1, "the units in which gemma3 states boxes are not known, only those of qwen2_vl"),
    ],
)
def test_a_box_that_can_not_be_converted_is_one_line(tmp_path, kind, answer, count, words):
    with pytest.raises(ValueError, match=words) as caught:
        in_units(tmp_path, kind, "pixels", answer, count=count)
    one_line(caught)


@pytest.mark.parametrize("kind", ["qwen2_vl", "llava"])
def test_a_template_may_say_where_the_picture_goes(tmp_path, kind):
    processor = load_processor(make_folder(tmp_path, kind))
    shown, spelled = [as_bytes(noise())], processor.placeholder
    for problem in ("<image>what?", "what?<image>"):
        ids = processor.prompt(problem, shown, template="<image>Look.\nUser: {problem}")
        expected = encode_prompt(processor.tokenizer, f"{spelled}Look.\nUser: what?", template="{problem}")
        assert [a for a, b in zip(ids, [None, *ids], strict=False) if not a == b == processor.image_id] == expected
    ids = processor.prompt("what?", [], template="<image>Look.\nUser: {problem}")
    assert ids == encode_prompt(processor.tokenizer, "what?", template="Look.\nUser: {problem}")


def test_a_preview_is_small_and_says_in_what_boxes_are():
    file = io.BytesIO()
    Image.new("RGB", (512, 256), "red").save(file, "PNG")
    found = pictures.preview({"problem": "", "images": [file.getvalue()], "box_size": (1000, 1000)})
    assert found["box_size"] == (1000, 1000) and found["images"][0].startswith("data:image/webp;base64,")
    image = pictures.open_picture(pictures.picture_of(found["images"][0], Path()))
    assert image.size == (128, 64) and image.getpixel((5, 5))[0] > 240 > 20 > image.getpixel((5, 5))[1]
    assert pictures.preview({"problem": "1 + 1"}) == {}


def test_a_box_in_shares_of_its_picture_by_hand():
    assert pictures.box_shares("it is (1,2),(3,4)", (4, 8)) == [0.25, 0.25, 0.75, 0.5]
    assert pictures.box_shares("three", (4, 8)) is None
