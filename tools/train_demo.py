"""Trains the demo pair: python tools/train_demo.py FOLDER tokenizer|text|target|drafter. Needs torch and transformers 5.17.0.

Each stage goes on from its last checkpoint in FOLDER. The stages and their numbers are described in tools/demo/README.md.
"""
import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "demo"))

STEPS = {"target": 2400, "drafter": 1000}  # of 4096 tokens


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, help="where checkpoints are kept")
    parser.add_argument("stage", choices=("tokenizer", "text", "target", "drafter"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, help="of the whole stage, which the rate follows; default: " + str(STEPS))
    parser.add_argument("--until", type=int, help="stop after this step")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    import corpus
    import vocabulary
    if args.stage == "tokenizer":
        vocabulary.train(corpus.texts(60000)).save(str(args.folder / "tokenizer.json"))
        return
    if args.stage == "text":  # what will be generated, for pymtp quantize add-centroids
        (args.folder / "text.txt").write_text("\n".join(corpus.texts(2000, "text", library=False)), encoding="utf-8")
        return
    import torch
    import train
    torch.set_num_threads(args.threads)
    train.compiled()
    if args.stage == "target":
        questions = json.loads(corpus.common.QUESTIONS.read_text())
        train.train_target(args.folder, args.steps or STEPS["target"], questions, args.until)
    else:
        train.train_drafter(args.folder, args.steps or STEPS["drafter"], args.until)


if __name__ == "__main__":
    main()
