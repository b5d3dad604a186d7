"""A page about a sound set of shards, for a person to look at: numbers, two histograms, and samples with captions."""

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from data_prep import page_sections as sections
from data_prep import page_template as html
from data_prep.caption_lengths import NumLonger
from data_prep.contact_sheet import ContactSheet
from data_prep.listing import found_listing
from data_prep.set_files import LISTING_FOLDER
from data_prep.set_verification import SetVerification
from data_prep.sources import source_of
from data_prep.stored_encoders import stored_autoencoder, stored_tokenizer
from data_prep.verification_report import notes
from ifvit.config.errors import UserError, printable
from ifvit.config.schema import Recipe
from ifvit.data.images import refuse_bombs
from ifvit.encoders.autoencoder import Autoencoder
from ifvit.encoders.clip_files import num_longer
from ifvit.runtime.distributed import Ranks, training_device
from ifvit.runtime.files import write_atomically

SUMMARY_FOLDER, PAGE_FILE = "summary", "index.html"
NUM_PICTURED = 24
USUAL_SIZE = 256  # pixels of originals, where no autoencoder says how large they were


class SummaryPage:
    """{folder}/summary/index.html. It is there as long as the last verification found no fault.

    `recipe` says where the images are, and may name the encoders otherwise than when the shards were made. Raises
    UserError where nothing can be written there.
    """

    def __init__(self, found: SetVerification, recipe: Recipe | None) -> None:
        self.found, self.recipe = found, recipe
        self.file = found.folder / SUMMARY_FOLDER / PAGE_FILE
        self.remarks: list[str] = []
        with self.writing():
            self.file.parent.mkdir(exist_ok=True)
            self.file.unlink(missing_ok=True)
        self.num_longer = self.longer_counter()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.file}: cannot be written ({error.strerror}); --no-page leaves the page out"
            ) from error

    def longer_counter(self) -> NumLonger | None:
        """Counts the captions that are cut. None, and a remark, where the tokenizer is not found."""
        if self.found.index is None:
            return None
        encoders = self.recipe.encoders if self.recipe else None
        chosen = encoders.tokenizer or encoders.text_encoder if encoders else None
        try:
            tokenizer = stored_tokenizer(self.found.index, chosen)
        except UserError as error:
            self.remarks.append(f"Captions that are cut are not told from those that just fit: {error}")
            return None
        num_text_tokens = self.found.index.shapes.num_text_tokens
        one_at_a_time = threading.Lock()  # a tokenizer notes in itself how it is to cut and pad

        def count(prompts: Sequence[str]) -> int:
            with one_at_a_time:
                return num_longer(tokenizer, prompts, num_text_tokens)

        return count

    def write(self) -> None:
        """Of damaged shards there is no page."""
        found = self.found
        if found.faults:
            with contextlib.suppress(OSError):
                self.file.parent.rmdir()
            return
        sheet = self.contact_sheet()
        for failure in (*self.remarks, *sheet.failures):
            print(f"note: {printable(failure)}", file=sys.stderr)
        title = f"Shards of {found.sound_index.split}"
        parts = [
            html.heading(title, f"{found.folder.resolve()}, verified {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"),
            sections.counts_section(found),
            html.paragraphs([*notes(found), *self.remarks]),
            html.columns(sections.latents_section(found), sections.captions_section(found)),
            html.columns(sections.encoders_section(found), sections.left_out_section(found)),
            sections.samples_section(sheet),
        ]
        with self.writing():
            write_atomically(self.file, html.page(title, parts).encode())

    def contact_sheet(self) -> ContactSheet:
        """With the pictures that can be had, and the reasons why others cannot."""
        refuse_bombs()
        autoencoder, failures = None, []
        try:
            autoencoder = self.autoencoder()
        except UserError as error:
            failures.append(f"Latents are not decoded: {error}")
        shapes = self.found.sound_index.shapes
        image_size = autoencoder.factor * shapes.sample_size if autoencoder else USUAL_SIZE
        sheet = ContactSheet(self.found.pictured, image_size)
        if autoencoder:
            sheet.add_decoded(autoencoder)
        try:
            self.add_originals(sheet)
        except UserError as error:
            failures.append(f"Originals are not shown: {error}")
        sheet.failures = [*failures, *sheet.failures]
        return sheet

    def autoencoder(self) -> Autoencoder:
        chosen = self.recipe.encoders.autoencoder if self.recipe else None
        return stored_autoencoder(self.found.sound_index, chosen, training_device(Ranks(local_rank=0)))

    def add_originals(self, sheet: ContactSheet) -> None:
        if self.recipe is None:
            raise UserError("--recipe RECIPE says where the images are")
        listing = found_listing(self.found.folder / LISTING_FOLDER)
        if listing is None:
            raise UserError(f"{self.found.folder}: has no listing, which says which image is which")
        sheet.add_originals(listing, source_of(self.recipe.data).root)
