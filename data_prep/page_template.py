"""The HTML of the summary page. Whatever text goes in is escaped here, once; nothing is loaded from elsewhere."""

import html
from collections.abc import Iterable, Sequence
from string import Template

from ifvit.config.errors import printable

MAX_CHARACTERS = 400  # of a text that data chose
SHOWN_CAPTIONS = 3  # of a sample; the others unfold

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --text: #1d2329; --quiet: #5d6873; --line: #d9dee3; --panel: #f5f7f9; --page: #fff;
  --bar: #3b82b4; --accent: #d1661a; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --quiet: #9aa5b0; --line: #343c44; --panel: #1e2429;
  --page: #14181c; --bar: #5aa0d0; --accent: #f09048; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 48px; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 36px 0 10px; }
p { margin: 6px 0; max-width: 80ch; }
.quiet { color: var(--quiet); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px; margin: 18px 0; }
.tile { background: var(--panel); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 20px; font-weight: 600; line-height: 1.3; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 20px 40px; }
.columns > * { min-width: 0; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line);
  min-width: 7ch; }
th { color: var(--quiet); font-weight: 500; }
th, td { overflow-wrap: normal; } td:nth-child(2) { overflow-wrap: anywhere; }
td.number, th.number { text-align: right; }
figure { margin: 0; }
svg { display: block; width: 100%; max-width: 520px; height: auto; }
svg text { fill: var(--quiet); font: 12px system-ui, sans-serif; }
.bar { fill: var(--bar); } .cut { fill: var(--accent); }
.axis { stroke: var(--line); } .curve { fill: none; stroke: var(--accent); stroke-width: 2; }
.samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 16px; }
.sample { background: var(--panel); border-radius: 8px; padding: 12px; }
.pictures { display: grid; grid-template-columns: 1fr 1fr; gap: 8px; }
.pictures img { display: block; width: 100%; height: auto; border-radius: 4px; }
.pixels img { image-rendering: pixelated; }
figcaption { color: var(--quiet); font-size: 13px; }
.absent { display: grid; place-items: center; aspect-ratio: 1; border: 1px dashed var(--line); border-radius: 4px;
  color: var(--quiet); font-size: 13px; }
ul { margin: 8px 0 0; padding-left: 18px; }
details summary { color: var(--quiet); cursor: pointer; margin-top: 4px; }
</style>
</head>
<body>
$body
</body>
</html>
""")


def page(title: str, parts: Iterable[str]) -> str:
    """The whole page; `parts` are HTML, as the other functions give it."""
    return PAGE.substitute(title=text(title), body="\n".join(parts))


def text(content: object) -> str:
    """Anything as text: on one line, escaped, without control characters or marks that turn its direction."""
    shown = printable(str(content))
    more = f" ... ({len(shown) - MAX_CHARACTERS:,} more characters)" if len(shown) > MAX_CHARACTERS else ""
    return html.escape(shown[:MAX_CHARACTERS]) + more


def heading(title: str, below: str) -> str:
    return f'<h1>{text(title)}</h1>\n<p class="quiet">{text(below)}</p>'


def section(title: str, *parts: str) -> str:
    return f"<section>\n<h2>{text(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def paragraphs(sentences: Iterable[str]) -> str:
    return "\n".join(f"<p>{text(sentence)}</p>" for sentence in sentences)


def tiles(values: Iterable[tuple[str, object]]) -> str:
    """Numbers, each over what it counts."""
    cells = (f'<div class="tile"><b>{text(value)}</b>{text(name)}</div>' for name, value in values)
    return f'<div class="tiles">{"".join(cells)}</div>'


def table(header: Sequence[str], rows: Iterable[Sequence[object]], numbers_from: int = 99) -> str:
    """Columns from `numbers_from` on are numbers."""

    def row(cells: Sequence[object], kind: str) -> str:
        classes = (' class="number"' if column >= numbers_from else "" for column in range(len(cells)))
        return "".join(f"<{kind}{name}>{text(cell)}</{kind}>" for cell, name in zip(cells, classes, strict=True))

    lines = [f"<tr>{row(cells, 'td')}</tr>" for cells in rows]
    if any(header):
        lines.insert(0, f"<tr>{row(header, 'th')}</tr>")
    return '<div class="table"><table>\n' + "\n".join(lines) + "\n</table></div>"


def columns(*parts: str) -> str:
    """Beside each other where there is room."""
    return '<div class="columns">\n' + "\n".join(f"<div>{part}</div>" for part in parts) + "\n</div>"


def samples(cards: Iterable[str], is_small: bool) -> str:
    """`is_small`: pictures of so few pixels that each is to be seen."""
    return f'<div class="samples{" pixels" if is_small else ""}">\n' + "\n".join(cards) + "\n</div>"


def sample_card(title: str, pictures: Iterable[tuple[str, str | None]], captions: Sequence[str]) -> str:
    """(label, data URI) of each picture, over the captions."""
    figures = "".join(
        f"<figure>{image(name, uri)}<figcaption>{text(name)}</figcaption></figure>" for name, uri in pictures
    )
    more = captions[SHOWN_CAPTIONS:]
    rest = f"<details><summary>{len(more)} more</summary>{listed(more)}</details>" if more else ""
    return (
        f'<article class="sample"><div class="pictures">{figures}</div>{listed(captions[:SHOWN_CAPTIONS])}{rest}'
        f'<p class="quiet">{text(title)}</p></article>'
    )


def image(name: str, uri: str | None) -> str:
    if uri is None:
        return '<div class="absent">not there</div>'
    return f'<img src="{html.escape(uri)}" alt="{text(name)}">'


def listed(captions: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li><bdi>{text(caption)}</bdi></li>" for caption in captions) + "</ul>"
