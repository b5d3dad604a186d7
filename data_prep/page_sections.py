"""What the summary page says of a sound set, section by section, as HTML."""

from data_prep import page_template as html
from data_prep.bad_samples import MAX_NAMED
from data_prep.contact_sheet import ContactSheet
from data_prep.latent_statistics import HISTOGRAM_END
from data_prep.page_charts import latent_histogram, length_histogram
from data_prep.set_description import tally_of
from data_prep.set_verification import SetVerification
from data_prep.storage_sizes import readable
from data_prep.verification_report import factor_lines, lengths_text


def counts_section(found: SetVerification) -> str:
    """The set's size and shapes."""
    shapes = found.sound_index.shapes
    text = f"{shapes.num_text_tokens} x {shapes.text_hidden_size}"
    return html.tiles(
        [
            ("samples", f"{found.num_samples:,}"),
            ("captions", f"{found.num_prompts:,}"),
            ("shards", f"{found.num_shards:,}"),
            ("in the tars", readable(found.num_bytes)),
            ("latents", f"{shapes.latent_channels} x {shapes.sample_size} x {shapes.sample_size}"),
            ("embeddings", text) if found.sound_index.has_embeddings else ("token ids", str(shapes.num_text_tokens)),
        ]
    )


def latents_section(found: SetVerification) -> str:
    """The distribution of latents, all and of each channel."""
    statistics = found.latents
    rows = [
        [number, *(f"{value:.3f}" for value in vars(channel).values())]
        for number, channel in enumerate(statistics.channels())
    ]
    return html.section(
        "Latents",
        latent_histogram(statistics.histogram.tolist(), statistics.num_drawn, HISTOGRAM_END),
        html.paragraphs(
            [
                "Drawn from the stored moments, times the scaling factor that is used. The curve is the unit normal.",
                *factor_lines(found),
            ]
        ),
        html.table(["channel", "mean", "deviation", "lowest", "highest"], rows, numbers_from=1),
        html.paragraphs(["Each channel unscaled; lowest and highest are those of the stored means."]),
    )


def captions_section(found: SetVerification) -> str:
    """How long captions are."""
    return html.section(
        "Captions", length_histogram(found.lengths.counts.tolist()), html.paragraphs([lengths_text(found)])
    )


def encoders_section(found: SetVerification) -> str:
    """What made the shards."""
    index = found.sound_index
    rows = [
        (what, f"{encoder.name}, {'random' if encoder.random else 'trained'} weights, sha256 {encoder.sha256[:12]}")
        for what, encoder in (("autoencoder", index.autoencoder), ("text encoder", index.text_encoder))
    ]
    text_encoder = index.text_encoder
    rows.append(("tokenizer", f"{text_encoder.tokenizer}, sha256 {text_encoder.tokenizer_sha256[:12]}"))
    return html.section("Made with", html.table(["", ""], rows))


def left_out_section(found: SetVerification) -> str:
    """What of the source is not in the shards, and why."""
    index = found.sound_index
    rows = [
        [what, reason, f"{count:,}", ", ".join(map(str, tally.first_ids[reason])), tally.shown_image(reason)]
        for what, values in (("samples", index.quarantined), ("captions", index.dropped_captions))
        for tally in [tally_of(values)]
        for reason, count in sorted(tally.counts.items(), key=lambda item: -item[1])
    ]
    listed = index.listed_samples
    if not rows:
        return html.section("Left out", html.paragraphs([f"Nothing: all {listed:,} listed samples are here."]))
    return html.section(
        "Left out",
        html.paragraphs([f"{found.num_samples:,} of {listed:,} listed samples are here."]),
        html.table(["", "left out because of", "count", f"their ids, up to {MAX_NAMED}", "file of the first id"], rows),
    )


def samples_section(sheet: ContactSheet) -> str:
    """Pictures and captions of some samples."""
    cards = []
    for row, sample in enumerate(sheet.samples):
        pictures = [(name, uris[row]) for name, uris in sheet.pictures.items()]
        cards.append(html.sample_card(f"id {sample.id}, shard {sample.shard}", pictures, sample.prompts))
    return html.section(
        f"{len(cards)} samples, spread evenly",
        html.paragraphs([*sheet.remarks, *sheet.failures]),
        html.samples(cards, sheet.is_small),
    )
