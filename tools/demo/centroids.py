"""Trains the centroids of the drafter's head: python centroids.py FOLDER BUILT.gguf [--clusters-used N] writes FOLDER/drafter-trained.

BUILT.gguf is the drafter with the centroids that `pymtp quantize add-centroids` found: its clusters stay, and its centroids are where
the training starts. They learn to give the highest score to the cluster that holds the dense head's best token; the drafter
itself is left alone. The rows are the first of the drafter's own training.
"""
import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

import model as M
import shape as S
import train

STEPS, RATE = 200, 3e-3


def trained(folder: Path, centroids: torch.Tensor, cluster_of: torch.Tensor) -> torch.Tensor:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    target, drafter = M.Target().eval(), M.Drafter().eval()
    for module, name in ((target, "target.pt"), (drafter, "drafter.pt")):
        module.load_state_dict(torch.load(folder / name, weights_only=True)["model"])
        module.requires_grad_(False)
    centroids = torch.nn.Parameter(centroids.clone())
    optimiser = torch.optim.Adam([centroids], lr=RATE)
    rows = train.Rows(tokenizer, train.SHORT_ROW, train.ROWS, "drafter")
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        with torch.no_grad():
            normed = torch.cat([n for n, _ in train.rounds(target, drafter, *rows.batch(step))])
            wanted = cluster_of[F.linear(normed, drafter.model.embed_tokens.weight).argmax(-1)]
        scores = F.linear(normed, centroids)
        loss = F.cross_entropy(scores, wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 20 == 0:
            rank = (scores > scores.gather(1, wanted[:, None])).sum(1)
            print(f"step {step + 1} loss {loss.item():.3f} found among 8, 16, 32, 64:",
                  [round((rank < k).float().mean().item(), 4) for k in (8, 16, 32, 64)], flush=True)
    return centroids.detach()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("built", type=Path)
    parser.add_argument("--clusters-used", type=int, default=16)
    args = parser.parse_args()
    built = {t.name: t for t in GGUFReader(args.built).tensors}
    ordering = torch.tensor(built["masked_embd_ordering"].data.tolist())
    start = built["masked_embd_centroids.weight"]
    start = torch.from_numpy(dequantize(start.data, start.tensor_type).copy()).float()
    cluster_of = torch.empty(S.VOCAB, dtype=torch.long)
    cluster_of[ordering] = torch.arange(S.VOCAB) // (S.VOCAB // len(start))
    source, into = args.folder / "drafter", args.folder / "drafter-trained"
    into.mkdir(exist_ok=True)
    for file in source.glob("*.json"):
        (into / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text())
    config |= dict(use_ordered_embeddings=True, num_centroids=len(start), centroid_intermediate_top_k=args.clusters_used)
    (into / "config.json").write_text(json.dumps(config, indent=1))
    state = load_file(source / "model.safetensors")
    state |= {"masked_embedding.centroids.weight": trained(args.folder, start, cluster_of), "masked_embedding.token_ordering": ordering}
    save_file(state, into / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
