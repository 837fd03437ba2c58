"""Networks whose members are trained side by side as one batched matrix product, and the loop that trains them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from zmill.models.base import Settings


class TrainingError(RuntimeError):
    """Training went wrong: the message says where and what to change."""


class Schedule(Settings):
    """How a network is trained."""

    epochs: int = Field(100, ge=1)
    """Most passes over the training rows."""
    batch: int = Field(256, ge=1)
    """Rows in one step."""
    lr: float = Field(1e-3, gt=0)
    """Highest learning rate."""
    one_cycle: bool = True
    """Learning rate rising over the first tenth and falling to nothing along a cosine; else constant."""
    weight_decay: float = Field(0.0, ge=0)
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the running average of the weights that is judged and kept; 0: the weights themselves."""
    patience: int = Field(20, ge=1)
    """Looks at the validation rows without a better score before training stops."""
    amp: bool = True
    """Products in bfloat16 where the device has instructions for them; the weights stay in float32."""
    look_every: int = Field(1, ge=1)
    """Epochs between two looks at the validation rows."""


class Linear(nn.Module):
    """`members` linear layers: (members, n, inputs) -> (members, n, outputs)."""

    def __init__(self, members: int, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        bound = gain * math.sqrt(3.0 / inputs)
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Apply each member's layer to its own rows."""
        if len(self.weight) == 1:  # a plain product: several times faster than a batched one on a CPU
            return functional.linear(x, self.weight[0].T, self.bias[0, 0])
        return torch.baddbmm(self.bias, x, self.weight)


class FullyConnected(nn.Module):
    """Layers of the given widths with ReLU between them and a linear output."""

    def __init__(self, members: int, inputs: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        widths = (inputs, *hidden)
        self.layers = nn.ModuleList(Linear(members, a, b, gain=math.sqrt(2)) for a, b in pairwise(widths))
        self.head = Linear(members, widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(members, n, inputs) -> (members, n, outputs)."""
        for layer in self.layers:
            x = functional.relu(layer(x))
        return self.head(x)


class ResidualMLP(nn.Module):
    """Residual blocks x + W2 relu(W1 x) between a linear stem and a linear head.

    The second matrix of a block starts at zero, so that the untrained network is shallow and depth needs no
    normalisation layers, which would cost more than the products when a survey is predicted.
    """

    def __init__(self, members: int, inputs: int, width: int, blocks: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.members = members
        self.stem = Linear(members, inputs, width)
        self.first = nn.ModuleList(Linear(members, width, width) for _ in range(blocks))
        self.second = nn.ModuleList(Linear(members, width, width, gain=0.0) for _ in range(blocks))
        self.head = Linear(members, width, outputs, gain=0.1)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(members, n, inputs) -> (members, n, outputs)."""
        x = functional.relu(self.stem(x))
        for first, second in zip(self.first, self.second, strict=True):
            inner = functional.relu(first(x))
            if self.training and self.dropout:
                inner = functional.dropout(inner, self.dropout)
            x = x + second(inner)
        return self.head(functional.relu(x))


class Applied:
    """A trained `ResidualMLP` member by member, in bfloat16 where the processor multiplies it: only predicts.

    The stem, whose inputs carry the colors, stays in float32.
    """

    def __init__(self, network: ResidualMLP) -> None:
        device = network.stem.weight.device
        self.dtype = torch.bfloat16 if multiplies_bfloat16(device) else torch.float32

        def layers(linear: nn.Module, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
            assert isinstance(linear, Linear)
            weight, bias = linear.weight.detach(), linear.bias.detach()
            return [(w.T.contiguous().to(dtype), b[0].to(dtype)) for w, b in zip(weight, bias, strict=True)]

        stem, head = layers(network.stem, torch.float32), layers(network.head, self.dtype)
        pairs = zip(network.first, network.second, strict=True)
        blocks = [(layers(a, self.dtype), layers(b, self.dtype)) for a, b in pairs]
        self.members = [
            (stem[m], [(first[m], second[m]) for first, second in blocks], head[m]) for m in range(network.members)
        ]

    def probability(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, outputs) float32: softmax of the outputs, averaged over the members."""
        total = None
        for stem, blocks, head in self.members:
            h = functional.linear(x, *stem).relu_().to(self.dtype)
            for first, second in blocks:
                h = h.add_(functional.linear(functional.linear(h, *first).relu_(), *second))
            p = functional.linear(h.relu_(), *head).float().softmax(-1)
            total = p if total is None else total.add_(p)
        assert total is not None
        return total.div_(len(self.members))


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    there = torch.cpu.get_capabilities()
    return bool(there.get("avx512_bf16") or there.get("amx_bf16"))


def adamw(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW, all parameters in one step."""
    return torch.optim.AdamW(parameters, schedule.lr, weight_decay=schedule.weight_decay, fused=True)


def train(
    network: nn.Module,
    rows: int,
    members: int,
    loss: Callable[[nn.Module, Tensor], Tensor],
    score: Callable[[nn.Module], float],
    schedule: Schedule,
    seed: int,
    say: Callable[[str], None],
    optimizer_of: Callable[[list[nn.Parameter], Schedule], torch.optim.Optimizer] = adamw,
) -> dict[str, Any]:
    """Train in place; the network ends with the weights that scored best on the validation rows.

    Parameters
    ----------
    network : with parameters of `members` members along their first axis.
    rows : number of training rows, all of them on the network's device.
    loss : of the network and row numbers (members, batch): the mean loss of each member, summed.
    score : of a network, smaller is better, on the validation rows.
    optimizer_of : the optimizer of given parameters.

    Returns
    -------
    history (epoch, loss, score), the best epoch and score: JSON-ready.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    device = next(network.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    batch = min(schedule.batch, rows)
    steps = rows // batch
    total = schedule.epochs * steps
    amp = schedule.amp and multiplies_bfloat16(device)
    optimizer = optimizer_of(list(network.parameters()), schedule)
    average = copy.deepcopy(network) if schedule.ema else network
    best, best_epoch, best_state, unimproved, step = math.inf, 0, copy.deepcopy(average.state_dict()), 0, 0
    history = []
    for epoch in range(1, schedule.epochs + 1):
        network.train()
        order = torch.stack([torch.randperm(rows, generator=generator, device=device) for _ in range(members)])
        running = torch.zeros((), device=device)
        for place in range(steps):
            if schedule.one_cycle:
                for group in optimizer.param_groups:
                    group["lr"] = schedule.lr * _one_cycle(step / total)
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                value = loss(network, order[:, place * batch : (place + 1) * batch])
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            step += 1
            running += value.detach()
            if schedule.ema:
                weight = 1 - min(schedule.ema, (1 + step) / (10 + step))
                with torch.no_grad():
                    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)
        mean_loss = float(running) / steps / members
        if not math.isfinite(mean_loss):
            raise TrainingError(
                f"the loss became {mean_loss} in epoch {epoch} of {schedule.epochs} (learning rate {schedule.lr:g}, "
                f"batch {batch}): lower the learning rate of this model in config.yaml, or scale its inputs"
            )
        if epoch % schedule.look_every and epoch < schedule.epochs:
            continue
        average.eval()
        with torch.inference_mode():
            now = score(average)
        history.append({"epoch": epoch, "loss": round(mean_loss, 6), "score": round(now, 6)})
        unimproved += 1
        if now < best:
            best, best_epoch, unimproved = now, epoch, 0
            best_state = copy.deepcopy(average.state_dict())
        if epoch == 1 or epoch % max(1, schedule.epochs // 10) == 0:
            say(f"epoch {epoch}: loss {mean_loss:.5g}, validation {now:.5g}, best {best:.5g} in epoch {best_epoch}")
        if unimproved >= schedule.patience:
            say(f"stopped in epoch {epoch}: no better since epoch {best_epoch}")
            break
    if not math.isfinite(best):
        raise TrainingError("the validation score was never finite: lower the learning rate, or scale the inputs")
    network.load_state_dict(best_state)
    network.eval()
    return {"history": history, "best_epoch": best_epoch, "best_score": best}


def _one_cycle(progress: float) -> float:
    """Share of the highest learning rate after a share of the steps."""
    rise = 0.1
    if progress < rise:
        return 0.04 + 0.96 * progress / rise
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
