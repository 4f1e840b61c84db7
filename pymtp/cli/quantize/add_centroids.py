"""pymtp quantize add-centroids: a head of clusters for a drafter with a dense one, so that a draft step multiplies fewer rows."""
from __future__ import annotations

import time
from typing import Any

import click

from .. import base


@base.command(examples="""
pymtp quantize add-centroids mtp-model.gguf mtp-model-clusters.gguf
pymtp quantize add-centroids mtp-model.gguf out.gguf --target model.gguf --text prose.txt
""")
@click.argument("drafter", metavar="DRAFTER.gguf", type=click.Path())
@click.argument("out", metavar="OUT.gguf", type=click.Path())
@click.option("--clusters", type=click.IntRange(2), help="A divisor of the vocabulary. Default: the largest up to four times its square root.")
@click.option("--top-k", type=click.IntRange(1), help="Clusters searched in a step. Default: the smallest of the table with a recall of 0.99.")
@click.option("--target", type=click.Path(), help="The drafter's target: learn and measure with the rows of a text (--text).")
@click.option("--text", "text_file", type=click.Path(), help="A UTF-8 file of what will be generated: code, prose, ...")
@click.option("--tokens", type=click.IntRange(2), default=1024, show_default=True, help="Tokens of the text at most.")
@click.option("--threads", type=click.IntRange(1), help="Default: one per core.")
@click.option("--dry-run", is_flag=True, help="Show what would be done; compute and write nothing.")
@click.option("--force", is_flag=True, help="Replace OUT.gguf, and a centroid head that the drafter has.")
@base.json_option
def command(drafter: str, out: str, clusters: int | None, top_k: int | None, target: str | None, text_file: str | None, tokens: int,
            threads: int | None, dry_run: bool, force: bool, as_json: bool) -> None:
    """Group the head rows of DRAFTER.gguf in clusters of equal size and write it with a centroid for each as OUT.gguf.

    Drafts are verified, so output never changes; what the clusters miss is drafts that would have been accepted. The table tells how
    many head rows a step multiplies for each top k, centroids counted, and how often these hold the dense head's first choice. Without
    --target and --text it is measured with stand-ins for hidden rows and can differ much from what real ones give.
    """
    from ... import centroids

    if (target is None) != (text_file is None):
        raise click.UsageError("--target and --text need each other", click.get_current_context())
    started = time.monotonic()
    with centroids.Drafter(drafter, force) as opened:
        n = clusters or centroids.default_clusters(opened.rows)
        if n < 2 or opened.rows % n:
            raise click.BadParameter(f"expected a divisor of the {opened.rows} rows of the head, found {n}", click.get_current_context(),
                                     param_hint="--clusters")
        if top_k is not None and top_k > n:
            raise click.BadParameter(f"expected at most the {n} clusters, found {top_k}", click.get_current_context(), param_hint="--top-k")
        result: dict[str, Any] = {"source": drafter, "target": out, "rows": opened.rows, "width": opened.width, "clusters": n,
                                  "members": opened.rows // n, "written": not dry_run}
        if not dry_run:
            result |= make(opened, out, n, top_k, target, text_file, tokens, threads, force)
    result["seconds"] = time.monotonic() - started
    if as_json:
        base.echo_json(result)
    else:
        click.echo("\n".join(lines(result)))


def make(opened: Any, out: str, clusters: int, top_k: int | None, target: str | None, text_file: str | None, tokens: int, threads: int | None,
         force: bool) -> dict[str, Any]:
    from ... import centroids
    from ...gguf_write import check_sources
    from ...hub.pairs import parts
    from ..progress import bar

    sources = [*parts(target), text_file] if target and text_file else []
    check_sources(out, [*parts(opened.path), *sources])  # before minutes of work, and once more when it is written
    text = hidden_rows(opened.path, target, text_file, tokens, threads) if target and text_file else None
    with bar("centroids", centroids.STEPS, of_bytes=False) as advance:
        made = centroids.add(opened, clusters, text, () if top_k is None else (top_k,), threads or 0, lambda note: advance(1, note))
    top = top_k or centroids.choose(made.lines)
    bytes_written = opened.write(out, made.head, top, force, sources=sources)
    return {"objective": made.head.objective, "hidden": made.hidden, "measured": made.measured, "table": [vars(line) for line in made.lines],
            "top_k": top, "bytes": bytes_written}


def hidden_rows(drafter: str, target: str, text_file: str, tokens: int, threads: int | None) -> Any:
    from ... import centroids
    from ...model import Model
    from ..progress import bar

    tokens = min(tokens, base.MOST_TOKENS)
    text = base.beginning(text_file, tokens)
    with Model(target, drafter, threads=threads) as model:
        ids = model.tokenize(text, bos=True)[:min(tokens, model.info.context - 1)]
        with bar("text", len(ids) - 1, of_bytes=False) as advance:
            return centroids.text_rows(model, ids, lambda: advance(1))


def lines(result: dict[str, Any]) -> list[str]:
    from ..base import printable, size

    shape = f"{result['clusters']} clusters of {result['members']} rows"
    if not result["written"]:
        return [f"{printable(result['target'])} would get {shape}, of width {result['width']}"]
    source = f"{result['measured']} hidden rows of the text" if result["hidden"] == "text" else \
        f"{result['measured']} stand-ins for hidden rows (random head rows with noise; --target and --text measure real ones)"
    out = [f"recall of the dense head's first choice, with {source}:", "  top k  rows a step      recall"]
    for line in result["table"]:
        mark = "  <- written" if line["top"] == result["top_k"] else ""
        out.append(f"{line['top']:7}  {line['rows']:10}  {line['recall']:10.4f}{mark}")
    return out + [f"{printable(result['target'])} has {shape} (mean cosine {result['objective']:.3f}), {size(result['bytes'])}; {result['seconds']:.1f} s"]
