"""data_prep/summary_page.py and what it is made of."""

import base64
import hashlib
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import page_template
from data_prep.page_charts import latent_histogram, length_histogram, nice_step
from data_prep.set_verification import SetVerification
from data_prep.shards import make_shards
from data_prep.summary_page import NUM_PICTURED, SummaryPage
from ifvit.config.errors import UserError
from ifvit.config.schema import Recipe
from ifvit.data.coco import CaptionedImage, read_coco
from ifvit.data.images import load_pixels
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.random_weights import random_autoencoder_folder
from ifvit.encoders.text_encoder import TextEncoder
from tests.drawn_coco import draw_coco, edit_annotations, tiny_recipe
from tests.forged_shards import reseal

HOSTILE = [
    "<script>alert(1)</script><img src=x onerror=alert(2)>",
    '" onload="alert(3)',
    "a \u202egnihtemos\u202c turned",
    "\x1b[31mred\x1b[0m and a \r line",
    "café 猫 \U0001f600 &amp; <|endoftext|>",
    "long " * 1000,
]


class Elements(HTMLParser):
    """Names, attributes and text of a page; raises where tags are not closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(content)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.names.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.names.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self) -> list[np.ndarray]:
        uris = [value for name, value in self.attributes if name == "src"]
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))) for uri in uris]


def page_of(folder: Path, recipe: Recipe | None = None) -> Elements:
    found = SetVerification(folder)
    page = SummaryPage(found, recipe)
    found.run(NUM_PICTURED, page.num_longer)
    assert not found.faults, found.faults.kept
    page.write()
    return Elements((folder / "summary" / "index.html").read_text(encoding="utf-8"))


@pytest.fixture
def folder(own_shards: Path) -> Path:
    return own_shards / "train"


def test_latents_beside_their_originals(folder: Path, drawn_coco: Path, own_shards: Path) -> None:
    page = page_of(folder, tiny_recipe(drawn_coco, own_shards))
    images = page.images()
    assert len(images) == 20 and all(image.shape == (32, 32, 3) for image in images)
    autoencoder = Autoencoder.load("random-autoencoder-small")
    for number in range(10):
        path = drawn_coco / "train2014" / f"COCO_train2014_{7 + 3 * number:012d}.jpg"
        pixels = load_pixels(CaptionedImage(0, path, ()), 32)
        decoded = autoencoder.decode(autoencoder.encode(pixels[None])[:, :4].half())[0]
        for image, expected in ((images[2 * number], decoded), (images[2 * number + 1], pixels)):
            assert np.abs(image - (expected.permute(1, 2, 0).numpy() + 1) * 127.5).max() < 1
    assert page.text.count("decoded latents") == page.text.count("original") == 10
    assert "Latents are decoded by random-autoencoder-small" in page.text


def test_numbers_and_notes(folder: Path, drawn_coco: Path) -> None:
    page = page_of(folder)
    for said in ("10samples", "19captions", "3shards", "102 KBin the tars", "4 x 4 x 4latents", "12 x 64embeddings"):
        assert said in page.text, said
    assert "random-clip-small has random weights" in page.text
    assert "Nothing: all 10 listed samples are here." in page.text
    assert "0.23010, the paper's, was measured with Stable Diffusion v1's autoencoder" in page.text
    prompts = [prompt for image in read_coco(drawn_coco, "train") for prompt in image.prompts]
    tokenizer = TextEncoder.load("random-clip-small", None, 12).tokenizer
    num_cut = sum(len(tokenizer(prompt).input_ids) > 12 for prompt in prompts)
    assert 0 < num_cut < 18  # 18 fill all
    assert f"{num_cut} ({num_cut / 19:.2%}) are cut at 12" in page.text
    assert page.names.count("svg") == 2


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(folder: Path) -> None:
    page = page_of(folder)
    assert not {"script", "link", "iframe", "object", "form", "a"} & set(page.names)
    loaded = [value for name, value in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert loaded and all(value.startswith("data:image/") for value in loaded)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    content = (folder / "summary" / "index.html").read_text()
    assert "http:" not in content and "https:" not in content and "url(" not in content and "@import" not in content
    (policy,) = [value for name, value in page.attributes if name == "content" and "-src" in value]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@pytest.mark.fault(
    "F23",
    injected="HTML, ANSI and bidi characters in captions on the summary page",
    detected="-",
    recovered="shown as text, escaped",
    lost="nothing",
)
def test_captions_are_text(tmp_path: Path) -> None:
    """F23."""
    coco = draw_coco(tmp_path / "coco", num_images=4)

    def edit(content: dict) -> None:
        image = content["images"][0]["id"]
        content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != image]
        content["annotations"] += [
            {"id": 10**6 + number, "image_id": image, "caption": text} for number, text in enumerate(HOSTILE)
        ]

    edit_annotations(coco, edit)
    make_shards(tiny_recipe(coco, tmp_path))
    page = page_of(tmp_path / "train")
    assert not {"script", "x"} & set(page.names)
    assert not any(name.startswith("on") for name, _ in page.attributes)
    for said in (
        HOSTILE[0],
        HOSTILE[1],
        r"a \u202egnihtemos\u202c turned",
        r"\x1b[31mred\x1b[0m and a \r line",
        HOSTILE[4],
    ):
        assert said in page.text, said
    assert "(4,600 more characters)" in page.text
    content = (tmp_path / "train" / "summary" / "index.html").read_text()
    assert all(letter.isprintable() or letter == "\n" for letter in content)
    assert content.count("<li><bdi>") == page.names.count("li") == 7 + len(HOSTILE) - 3 + 2


def test_what_was_left_out_is_listed_by_reason(tmp_path: Path) -> None:
    coco = draw_coco(tmp_path / "coco")
    (coco / "train2014" / "COCO_train2014_000000000016.jpg").write_text("no image")
    edit_annotations(coco, lambda content: content["annotations"][1].update(caption=" "))
    make_shards(tiny_recipe(coco, tmp_path, "data.max_bad_share=0.5"))
    page = page_of(tmp_path / "train")
    assert "left out because ofcounttheir ids, up to 10file of the first id" in page.text
    assert "samplesnot an image116COCO_train2014_000000000016.jpg" in page.text
    assert "captionsempty131COCO_train2014_000000000031.jpg" in page.text
    assert "9 of 10 listed samples are here." in page.text


def test_without_a_recipe_the_latents_stand_alone(folder: Path) -> None:
    page = page_of(folder)
    assert len(page.images()) == 10
    assert "Originals are not shown: --recipe RECIPE says where the images are" in page.text


def test_another_autoencoder_of_the_same_name_is_not_taken(folder: Path, drawn_coco: Path, own_shards: Path) -> None:
    def rename(values: dict) -> None:
        values["autoencoder"]["name"] = "scenes-autoencoder"

    reseal(folder / "index.json", rename)
    page = page_of(folder)
    assert "Latents are not decoded: scenes-autoencoder has other content (sha256 " in page.text
    assert not page.images()
    named = page_of(folder, tiny_recipe(drawn_coco, own_shards))  # names the one that made them
    assert len(named.images()) == 20


def test_an_encoder_that_is_gone_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def rename(values: dict) -> None:
        values["autoencoder"]["name"] = values["text_encoder"]["tokenizer"] = "/no/such/folder"

    reseal(folder / "index.json", rename)
    page = page_of(folder)
    assert "Latents are not decoded: encoders.autoencoder: '/no/such/folder' is no local folder" in page.text
    assert "Captions that are cut are not told from those that just fit: encoders.tokenizer: " in page.text
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert [note.split(": ")[1] for note in notes] == [
        "Captions that are cut are not told from those that just fit",
        "Latents are not decoded",
        "Originals are not shown",
    ]
    assert "18 (94.74%) are cut at 12 or just as long" in page.text


def test_the_autoencoder_is_found_wherever_it_lies(folder: Path, tmp_path: Path, drawn_coco: Path) -> None:
    moved = shutil.copytree(random_autoencoder_folder(), tmp_path / "moved")
    page = page_of(folder, tiny_recipe(drawn_coco, folder.parent, f"encoders.autoencoder={moved}"))
    assert f"Latents are decoded by {moved}, the autoencoder that made them." in page.text


def test_originals_that_are_gone_leave_a_gap(
    folder: Path, drawn_coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = shutil.copytree(drawn_coco, tmp_path / "coco")
    (coco / "train2014" / "COCO_train2014_000000000007.jpg").unlink()
    page = page_of(folder, tiny_recipe(coco, folder.parent))
    assert len(page.images()) == 19
    assert "1 of 10 originals cannot be shown; the first: image 7: " in page.text
    assert "note: 1 of 10 originals cannot be shown; the first: image 7: " in capsys.readouterr().err
    assert page.text.count("not there") == 1


def test_a_listing_that_leads_elsewhere_is_not_followed(folder: Path, drawn_coco: Path, tmp_path: Path) -> None:
    rows = folder / "listing" / "shard-000000.jsonl"
    row, *others = rows.read_bytes().splitlines(keepends=True)
    values = json.loads(row) | {"image": "../train2014/COCO_train2014_000000000007.jpg"}
    rows.write_bytes(json.dumps(values).encode() + b"\n" + b"".join(others))
    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
    reseal(folder / "listing" / "listing.json", lambda content: content["shards"][0].update(sha256=digest))
    reseal(folder / "shard-000000.json", lambda content: content.update(listing_sha256=digest))
    page = page_of(folder, tiny_recipe(drawn_coco, folder.parent))
    assert "1 of 10 originals cannot be shown; the first: image 7: the listing names no file for it" in page.text


def test_of_damaged_shards_there_is_no_page(folder: Path) -> None:
    page_of(folder)
    (folder / "samples.index").unlink()
    found = SetVerification(folder)
    page = SummaryPage(found, None)
    found.run(NUM_PICTURED, page.num_longer)
    page.write()
    assert not (folder / "summary").exists()


def test_a_folder_that_cannot_be_written_is_known_before_the_work(folder: Path) -> None:
    (folder / "summary").write_text("")
    with pytest.raises(UserError, match=r"summary/index\.html: cannot be written .*; --no-page leaves the page out"):
        SummaryPage(SetVerification(folder), None)


def bars(svg: str, name: str = "bar") -> list[float]:
    return [float(height) for height in re.findall(rf'class="{name}"[^>]*height="([\d.]+)"', svg)]


def test_the_chart_of_lengths() -> None:
    svg = length_histogram([0, 0, 0, 10, 20, 0, 5])
    drawn = bars(svg)
    assert len(drawn) == 2 and drawn[1] == pytest.approx(2 * drawn[0], rel=0.01)
    assert bars(svg, "cut") == [pytest.approx(drawn[0] / 2, rel=0.01)]
    assert length_histogram([0, 0, 3]).count("cut") == 1
    assert "10,000" in length_histogram([0, 0, 40_000, 1])


def test_the_chart_of_latents_is_a_density() -> None:
    normal = np.random.default_rng(0).normal(size=100_000)
    counts = np.histogram(normal, 80, (-4, 4))[0].tolist()
    svg = latent_histogram(counts, len(normal), 4.0)
    heights = bars(svg)
    points = [tuple(map(float, point.split(","))) for point in re.search(r'points="([^"]+)"', svg)[1].split()]
    bottom = max(y for _, y in points)
    assert max(heights) == pytest.approx(bottom - min(y for _, y in points), rel=0.05)


@pytest.mark.parametrize("value, step", [(0.1, 0.1), (0.11, 0.2), (3, 5), (5.1, 10), (700, 1000)])
def test_steps_of_axes(value: float, step: float) -> None:
    assert nice_step(value) == pytest.approx(step)


def test_text_is_escaped_whatever_it_is() -> None:
    assert page_template.text("<&\"'>\n") == "&lt;&amp;&quot;&#x27;&gt;\\n"
    assert page_template.text(7) == "7"
