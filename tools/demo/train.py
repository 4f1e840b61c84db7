"""The two trainings, resumable at any checkpoint: first the target, then the drafter on the target's hidden states and K/V.

A checkpoint is written beside its final name and renamed. The data of a step depends on its number only.
"""
import os
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import corpus
import model as M
import shape as S
from optimise import DECAY, Optimiser, rate

ROWS = 16
BLOCK = 262144  # tokens drawn at once
SAVE_SECONDS = 150
STEPS = 4  # chained drafts
TOP = 16  # the target's distribution, as far as the drafter learns it
# from this share of the target's steps on rows are longer, so that conversations of a thousand tokens work too
LONG_FROM, SHORT_ROW, LONG_ROW = 0.85, 256, 512


class Rows:
    """The rows of the training, in order, from step `at` on: whole blocks are skipped, not drawn, so it starts at once."""

    def __init__(self, tokenizer, length, rows, seed=corpus.TRAIN):
        self.tokenizer, self.length, self.rows, self.seed = tokenizer, length, rows, seed
        self.number = None
        self.per_block = int(BLOCK * 0.95) // (length * rows)  # every block has at least so many batches

    def batch(self, step):
        number, i = divmod(step, self.per_block)
        if number != self.number:
            self.number, self.block = number, corpus.block(self.tokenizer, number, self.length, BLOCK, self.seed)
        part = slice(i * self.rows, (i + 1) * self.rows)
        return [torch.from_numpy(x[part]) for x in self.block]


def save(path, **state):
    temporary = Path(f"{path}.part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def compiled():
    """Layers as fused kernels: twice as fast."""
    M.Layer.forward = torch.compile(M.Layer.forward, dynamic=False)


def next_tokens(ids, document, wanted):
    """Which positions predict a token that is learned, and that token."""
    want = wanted[:, 1:] & (document[:, 1:] == document[:, :-1])
    return want, ids[:, 1:]


class Log:
    def __init__(self, path):
        self.path, self.start, self.tokens = path, time.time(), 0

    def write(self, line):
        line = f"{time.strftime('%H:%M:%S')} {line}"
        print(line, flush=True)
        with open(self.path, "a") as file:
            file.write(line + "\n")


def answers_right(target, tokenizer, questions):
    """How many answers the target would give exactly, greedily: every token of the answer and its end is the argmax."""
    encoded = [corpus.encode(tokenizer, q["kind"], corpus.common.ask(q["question"], q["answer"])) for q in questions]
    right = {}
    for q, one in zip(questions, encoded):
        one.ids, one.wanted = one.ids[:-1], one.wanted[:-1]
    ids, document, wanted = (torch.from_numpy(x) for x in corpus.pack_rows(encoded, 64))
    with torch.no_grad():
        hidden, _ = target(ids, document)
        best = F.linear(hidden, target.model.embed_tokens.weight).argmax(-1)
    want, following = next_tokens(ids, document, wanted)
    fine = ((best[:, :-1] == following) | ~want).all(1).tolist()
    for q, ok in zip(questions, fine):
        right[q["kind"]] = right.get(q["kind"], 0) + ok
    return sum(fine), right


def train_target(folder: Path, steps: int, questions, until=None):
    tokenizer, log = Tokenizer.from_file(str(folder / "tokenizer.json")), Log(folder / "target.log")
    torch.manual_seed(1)
    target = M.Target()
    optimiser, first, path = Optimiser(target), 0, folder / "target.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        target.load_state_dict(state["model"])
        optimiser.load(state["optimiser"])
        first = state["step"]
    long_from, decay_from = int(steps * LONG_FROM), int(steps * (1 - DECAY))
    short, long = Rows(tokenizer, SHORT_ROW, ROWS), Rows(tokenizer, LONG_ROW, ROWS * SHORT_ROW // LONG_ROW)
    log.write(f"target: step {first} of {steps}")
    saved = began = time.time()
    mean, tokens = 0.0, 0
    for step in range(first, min(steps, until or steps)):
        ids, document, wanted = short.batch(step) if step < long_from else long.batch(step - long_from)
        hidden, _ = target(ids, document)
        want, following = next_tokens(ids, document, wanted)
        loss = M.SoftcappedLoss.apply(hidden[:, :-1][want], target.model.embed_tokens.weight, following[want])
        loss.backward()
        optimiser.step(rate(step, steps))
        mean, tokens = mean + loss.item(), tokens + int((document > 0).sum())
        if (step + 1) % 20 == 0:
            log.write(f"step {step + 1} loss {mean / 20:.4f} rate {rate(step, steps):.3f} tokens/s {tokens / (time.time() - began):.0f}")
            mean, tokens, began = 0.0, 0, time.time()
        if (step + 1) % 200 == 0:
            log.write(f"step {step + 1} answers {answers_right(target, tokenizer, questions)}")
        if time.time() - saved > SAVE_SECONDS or step + 1 in (decay_from, steps, until):
            save(path, model=target.state_dict(), optimiser=optimiser.state(), step=step + 1)
            saved = time.time()
        if step + 1 == decay_from:  # a longer training goes on from here
            shutil.copy(path, folder / "target-constant.pt")


def distribution(target, hidden):
    """The target's TOP likeliest tokens at each row, and their shares."""
    values, tokens = [], []
    for part in hidden.split(1024):
        logits = F.linear(part.bfloat16(), target.model.embed_tokens.weight.bfloat16()).float()
        best = (S.SOFTCAP * torch.tanh(logits / S.SOFTCAP)).topk(TOP, -1)
        values.append(best.values.softmax(-1))
        tokens.append(best.indices)
    return torch.cat(values), torch.cat(tokens)


class SparseLoss(torch.autograd.Function):
    """Mean cross-entropy of plain logits against a sparse distribution, gradients computed chunk by chunk."""

    @staticmethod
    def forward(ctx, hidden, table, shares, tokens):
        half, low, n = table.bfloat16(), hidden.bfloat16(), len(hidden)
        grad_hidden, grad_table, loss = torch.empty_like(hidden), torch.zeros_like(table), hidden.new_zeros(())
        for i in range(0, n, 512):
            part = slice(i, i + 512)
            logits = F.linear(low[part], half).float()
            total = logits.logsumexp(-1, keepdim=True)
            loss += (total[:, 0] - (logits.gather(1, tokens[part]) * shares[part]).sum(1)).sum()
            grad = logits.sub_(total).exp_().scatter_add_(1, tokens[part], -shares[part]).div_(n).bfloat16()
            grad_hidden[part] = (grad @ half).float()
            grad_table += (grad.T @ low[part]).float()
        ctx.save_for_backward(grad_hidden, grad_table)
        return loss / n

    @staticmethod
    def backward(ctx, grad):
        grad_hidden, grad_table = ctx.saved_tensors
        return grad * grad_hidden, grad * grad_table, None, None


def rounds(target, drafter, ids, document, wanted):
    """Draft every position of the rows at once, STEPS deep: yields per step the drafter's normed hidden, and the row of the
    target that knows the answer, for the positions where that answer is learned.

    Position P (a token's own index) drafts from hidden[P - 1] and the token at P, step j from its own hidden and the token at
    P + j; the token it looks for stands at P + j + 1, which the target predicts at P + j."""
    rows, n = ids.shape
    with torch.no_grad():
        hidden, kv = target(ids, document)
        embedded = target.embed(ids)
    mask = dict(zip("sf", M.masks(document, strict=True)))
    table = {kind: M.rope_table(kind, torch.arange(n)) for kind in "sf"}
    state = F.pad(hidden, (0, 0, 1, 0))[:, :-1]  # of the position before
    inside = torch.zeros_like(wanted)
    inside[:, 1:] = document[:, 1:] == document[:, :-1]  # somebody stands before P
    inside &= document > 0
    for j in range(STEPS):
        normed, state = drafter(F.pad(embedded, (0, 0, 0, j))[:, j:], state, kv, mask, table)
        want = torch.zeros_like(wanted)
        want[:, :n - j - 1] = inside[:, :n - j - 1] & wanted[:, j + 1:] & (document[:, j + 1:] == document[:, :n - j - 1])
        at = want.nonzero(as_tuple=True)
        yield normed[at], hidden[at[0], at[1] + j]


def train_drafter(folder: Path, steps: int, until=None):
    tokenizer, log = Tokenizer.from_file(str(folder / "tokenizer.json")), Log(folder / "drafter.log")
    target = M.Target().eval()
    target.load_state_dict(torch.load(folder / "target.pt", weights_only=True)["model"])
    target.requires_grad_(False)
    torch.manual_seed(2)
    drafter = M.Drafter()
    with torch.no_grad():  # start from the target's own table: neighbours stay neighbours
        _, _, v = torch.pca_lowrank(target.model.embed_tokens.weight, S.DRAFT_HIDDEN)
        projected = target.model.embed_tokens.weight @ v
        drafter.model.embed_tokens.weight.copy_(projected / projected.pow(2).mean().sqrt() * S.DRAFT_HIDDEN**-0.5)
    optimiser, first, path = Optimiser(drafter), 0, folder / "drafter.pt"
    if path.exists():
        state = torch.load(path, weights_only=True)
        drafter.load_state_dict(state["model"])
        optimiser.load(state["optimiser"])
        first = state["step"]
    rows = Rows(tokenizer, SHORT_ROW, ROWS, "drafter")
    log.write(f"drafter: step {first} of {steps}")
    saved = began = time.time()
    tokens, mean, agreed = 0, 0.0, torch.zeros(STEPS)
    for step in range(first, min(steps, until or steps)):
        ids, document, wanted = rows.batch(step)
        loss = 0
        for j, (normed, knows) in enumerate(rounds(target, drafter, ids, document, wanted)):
            shares, best = distribution(target, knows)
            loss = loss + M.STEP_WEIGHT[j] * SparseLoss.apply(normed, drafter.model.embed_tokens.weight, shares, best)
            if step % 10 == 0:
                with torch.no_grad():
                    guess = F.linear(normed[::8], drafter.model.embed_tokens.weight).argmax(-1)
                    agreed[j] += (guess == best[::8, 0]).float().mean() / 2
        loss.backward()
        optimiser.step(rate(step, steps))
        mean, tokens = mean + loss.item(), tokens + int((document > 0).sum())
        if (step + 1) % 20 == 0:
            log.write(f"step {step + 1} loss {mean / 20:.4f} agreed {[round(x, 3) for x in agreed.tolist()]} "
                      f"tokens/s {tokens / (time.time() - began):.0f}")
            tokens, mean, agreed, began = 0, 0.0, torch.zeros(STEPS), time.time()
        if time.time() - saved > SAVE_SECONDS or step + 1 == steps or step + 1 == until:
            save(path, model=drafter.state_dict(), optimiser=optimiser.state(), step=step + 1)
            saved = time.time()
