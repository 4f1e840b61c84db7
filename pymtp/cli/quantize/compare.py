"""pymtp quantize compare: how far two files, and what their models predict, are apart."""
from __future__ import annotations

import math
from typing import Any

import click

from .. import base


@base.command(examples="""
pymtp quantize compare model-BF16.gguf model-Q4_K_M.gguf
pymtp quantize compare model-BF16.gguf model-Q4_K_M.gguf --text prose.txt --tokens 1024
""")
@click.argument("a", metavar="A.gguf", type=click.Path())
@click.argument("b", metavar="B.gguf", type=click.Path())
@click.option("--text", "text_file", type=click.Path(), help="A UTF-8 file: compare what both models predict on it.")
@click.option("--tokens", type=click.IntRange(2), default=512, show_default=True, help="Tokens of the text at most.")
@click.option("--threads", type=click.IntRange(1), help="Of the models. Default: one per core.")
@base.json_option
def command(a: str, b: str, text_file: str | None, tokens: int, threads: int | None, as_json: bool) -> None:
    """Print in what B.gguf differs from A.gguf: keys, and each tensor's type, size and error.

    With --text also the perplexity of both models, the mean of KL(A || B) and how often both have the same first choice. One model is
    in memory at a time; A's logits go to a temporary file of tokens x vocabulary x 4 bytes.
    """
    from ... import compare
    from ...gguf_file import File
    from ..progress import bar

    with File(a) as file_a, File(b) as file_b:
        keys = [vars(k) for k in compare.compare_keys(file_a, file_b, (a, b))]
        with bar("tensors", sum(t.bytes for t in file_a.tensors())) as advance:
            tensors = compare.compare_tensors(file_a, file_b, advance)
        result: dict[str, Any] = {"a": a, "b": b, "keys": keys,
                                  "only_a": compare.names_only_in(file_a, file_b), "only_b": compare.names_only_in(file_b, file_a),
                                  "tensors": [vars(t) for t in tensors], "predictions": None}
    if text_file is not None:
        tokens = min(tokens, base.MOST_TOKENS)
        text = base.beginning(text_file, tokens)
        with bar("text", 2 * (tokens - 1), of_bytes=False) as advance:
            result["predictions"] = vars(compare.compare_predictions(a, b, text, tokens, threads, advance))
    if as_json:
        base.echo_json(result)
    else:
        click.echo("\n".join(lines(result)))


def lines(result: dict[str, Any]) -> list[str]:
    from ..base import printable, size

    out = []
    if result["keys"]:
        out.append("keys")
        for k in result["keys"]:
            out.append(f"  {printable(k['key'])}: " + " -> ".join("(none)" if k[f] is None else printable(k[f], 40) for f in ("a", "b")))
    for side in ("a", "b"):
        out += [f"only in {printable(result[side])}: {printable(name)}" for name in result["only_" + side]]
    changed = [t for t in result["tensors"] if t["type_a"] != t["type_b"] or t["dims_a"] != t["dims_b"] or t["max_abs"] != 0]
    if changed:
        width = max(len(printable(t["name"])) for t in changed)
        out.append(f"{'tensor'.ljust(width)}  type               A bytes     B bytes  relative RMS   largest error")
        out += [tensor_line(t, width) for t in changed]
    total = [sum(t["bytes_" + side] for t in result["tensors"]) for side in ("a", "b")]
    out.append(f"{len(result['tensors'])} tensors in both, {size(total[0])} and {size(total[1])}; {len(result['tensors']) - len(changed)} hold the same values in the same type")
    p = result["predictions"]
    if p:
        out.append(f"{p['positions']} tokens predicted: perplexity {p['perplexity_a']:.4f} and {p['perplexity_b']:.4f} "
                   f"({100 * (p['perplexity_b'] / p['perplexity_a'] - 1):+.2f} %), KL(A || B) {p['kl']:.6f} nats, "
                   f"same first choice {100 * p['top1']:.2f} %")
    return out


def tensor_line(t: dict[str, Any], width: int) -> str:
    kind = t["type_a"] if t["type_a"] == t["type_b"] else f"{t['type_a']} -> {t['type_b']}"
    name = base.printable(t["name"]).ljust(width)
    if t["dims_a"] != t["dims_b"]:
        shapes = " and ".join(" x ".join(map(str, reversed(t[f]))) for f in ("dims_a", "dims_b"))
        return f"{name}  {kind:16}  shapes {shapes}"
    errors = [("-" if v is None or not math.isfinite(v) else f"{v:.3g}") for v in (t["relative_rms"], t["max_abs"])]
    return f"{name}  {kind:16}  {t['bytes_a']:9}  {t['bytes_b']:10}  {errors[0]:>12}  {errors[1]:>14}"
