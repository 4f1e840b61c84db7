"""pymtp quantize imatrix: an importance matrix, collected by running a model over text."""
from __future__ import annotations

import contextlib
import math
import os
import sys

import click

from .. import base

MOST_BYTES = 1 << 28  # of a text


@base.command(examples="""
pymtp quantize imatrix model-BF16.gguf prose.txt code.txt -o model.imatrix.gguf
pymtp quantize imatrix model-BF16.gguf prose.txt -o model.imatrix.gguf --pieces 20
""")
@click.argument("model", type=click.Path())
@click.argument("texts", metavar="TEXT...", nargs=-1, required=True, type=click.Path())
@click.option("--output", "-o", required=True, type=click.Path(), help="File to write.")
@click.option("--piece", default=512, show_default=True, type=click.IntRange(2), help="Tokens of a piece; each starts from an empty cache.")
@click.option("--pieces", "limit", type=click.IntRange(1), help="At most so many pieces. Default: all.")
@click.option("--threads", type=click.IntRange(1), help="Default: one per core.")
@click.option("--force", is_flag=True, help="Replace OUTPUT.")
@base.json_option
def command(model: str, texts: tuple[str, ...], output: str, piece: int, limit: int | None, threads: int | None, force: bool, as_json: bool) -> None:
    """Run MODEL over the files TEXT... (- is standard input) and write the mean squares of what met its weights."""
    from ... import imatrix
    from ...errors import ArgumentError, WriteError
    from ...gguf_write import check_sources
    from ...hub.pairs import parts
    from ...model import Model
    from ..progress import bar

    if os.path.exists(output) and not force:  # before minutes of work, and once more when it is written
        raise WriteError(f"{output}: exists already")
    sources = [*parts(model), *texts]
    check_sources(output, sources)
    contents = [read_text(path) for path in texts]
    with Model(model, None, threads=threads) as opened:
        piece = min(piece, opened.info.context)
        prompts = imatrix.pieces(opened, contents, piece)[:limit]
        if not prompts:
            raise ArgumentError("TEXT: expected at least one token, found none")
        tokens = sum(map(len, prompts))
        with bar("imatrix", tokens, of_bytes=False) as advance:
            sums, nll = imatrix.collect(opened, prompts, advance)
    datasets = [os.path.basename(path) for path in texts]
    size = imatrix.save(output, sums, datasets, len(prompts), piece, force, sources)
    unseen = sum(int((s.counts == 0).sum()) for s in sums.values())
    result = {"output": output, "bytes": size, "tensors": len(sums), "tokens": tokens, "pieces": len(prompts), "unseen": unseen,
              "perplexity": math.exp(min(nll, 700))}
    if as_json:
        base.echo_json(result)
    else:
        click.echo(f"{base.printable(output)}: {len(sums)} tensors, {tokens} tokens in {len(prompts)} pieces, perplexity {result['perplexity']:.3f}"
                   + (f"; {unseen} experts' matrices met no token" if unseen else ""))


def read_text(path: str) -> str:
    """A text, - for standard input; pipes are welcome, endless ones are not."""
    from ...errors import ReadError

    try:
        file = contextlib.nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb")
        with file as f:
            raw = f.read(MOST_BYTES + 1)
    except OSError as error:
        raise ReadError(f"{path}: {error.strerror}") from None
    if len(raw) > MOST_BYTES:
        raise ReadError(f"{path}: expected at most {MOST_BYTES >> 20} MiB of text, found more")
    return raw.decode("utf-8", "replace")
