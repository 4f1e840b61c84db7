"""The optimiser of both trainings: Muon for the inner matrices, AdamW for tables, norms and scales, one schedule for both."""
import torch

PEAK, WARMUP = 4e-3, 100
DECAY = 0.3  # share of the steps at the end in which the rate falls
TABLE_RATIO = 0.75  # AdamW's rate over Muon's


class Optimiser:
    def __init__(self, module):
        inner, other = [], []
        for name, p in module.named_parameters():
            (inner if p.ndim == 2 and "embed_tokens" not in name and "centroids" not in name else other).append(p)
        self.parts = [torch.optim.Muon(inner, lr=PEAK, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
                      torch.optim.AdamW(other, lr=PEAK * TABLE_RATIO, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]
        self.parameters = inner + other

    def step(self, rate: float):
        """rate: 0 to 1, of the peak."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for part, ratio in zip(self.parts, (1.0, TABLE_RATIO)):
            for group in part.param_groups:
                group["lr"] = PEAK * ratio * rate
            part.step()
            part.zero_grad()

    def state(self):
        return [part.state_dict() for part in self.parts]

    def load(self, states):
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)


def rate(step: int, steps: int) -> float:
    """Warm up, stay, and fall linearly to zero."""
    return min((step + 1) / WARMUP, 1.0, max((steps - step) / (steps * DECAY), 0.0))
