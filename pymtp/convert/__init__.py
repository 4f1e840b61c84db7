"""Hugging Face checkpoints of Gemma 4 and its drafters -> GGUF.

    with pymtp.convert.plan("gemma-4-E2B-it", "Q4_K_M") as plan:
        plan.write("gemma-4-E2B-it-Q4_K_M.gguf")

files: JSON; safetensors: tensor data; config: sizes; tokenizer, keys: metadata; tensors: names; source: all of these as one;
driver: the conversion. docs/CONVERT.md says what becomes of what.
"""
from .driver import Plan, plan

__all__ = ["Plan", "plan"]
