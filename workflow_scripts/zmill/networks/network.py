"""Networks whose members are trained side by side as one batched matrix product, and the loop that trains them."""

from __future__ import annotations

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from zmill.networks.callbacks import Callback, State
from zmill.networks.device import multiplies_bfloat16
from zmill.networks.parallel import CPU_LANES, lanes
from zmill.sections import Section

AVERAGE = 0.99
"""Decay of the running average of the weights where no score picks the best of them: the last step alone may be a bad one."""
LOG_EVERY = 5.0
"""Seconds between two epochs that are logged, at least."""
Loss: TypeAlias = Callable[[nn.Module, Tensor, torch.Generator], Tensor]


class TrainingError(RuntimeError):
    """Training went wrong: the message says where and what to change."""


class Schedule(Section):
    """How a network is trained."""

    epochs: int = Field(100, ge=1, le=100_000)
    """Most passes over the training rows."""
    most_rows: int = Field(10_000_000, ge=1, le=10**12)
    """Most rows that are seen, passes times training rows: of more rows there are fewer passes, at least one."""
    batch: int = Field(256, ge=1, le=2**20)
    """Rows in one step."""
    lr: float = Field(1e-3, gt=0, le=10)
    """Highest learning rate."""
    one_cycle: bool = True
    """Learning rate rising over the first tenth and falling to nothing along a cosine; else constant."""
    weight_decay: float = Field(0.0, ge=0, le=10)
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the running average of the weights that is judged and kept; 0: the weights themselves."""
    patience: int = Field(20, ge=1, le=100_000)
    """Looks at the validation rows without a better score before training stops."""
    amp: bool = True
    """Products in bfloat16 where the device has instructions for them; the weights stay in float32."""
    look_every: int = Field(1, ge=1, le=1000)
    """Epochs between two looks at the validation rows."""

    def passes_over(self, rows: int) -> int:
        """Most passes over so many training rows."""
        return min(self.epochs, max(1, self.most_rows // rows))


class Residual(Section):
    """Shape of a residual network."""

    width: int = Field(256, ge=8, le=2**14)
    """Numbers in each layer."""
    blocks: int = Field(3, ge=0, le=100)
    """Residual blocks of two layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of a block's inner numbers that a training step leaves out."""
    waves: int = Field(16, ge=0, le=1000)
    """Sines, and as many cosines, that each luptitude and color is given as beside itself; 0: none."""
    embedding: int = Field(8, ge=1, le=1000)
    """Numbers that the waves of one input become."""
    frequency: float = Field(0.1, gt=0, le=1000)
    """Standard deviation of the waves' first frequencies, in periods per standard deviation of the input."""


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
            x = layer(x).relu_()
        return self.head(x)


class Waves(nn.Module):
    """Numbers as sines and cosines of learned frequencies, then a linear layer with ReLU of their own each.

    Redshift is a rapidly varying function of color, which a network of ReLU alone learns slowly (Gorishniy, Rubachev &
    Babenko 2022, eq. 2, "PLR").
    """

    def __init__(self, members: int, settings: Residual, values: int) -> None:
        super().__init__()
        frequencies, numbers = settings.waves, settings.embedding
        self.frequency = nn.Parameter(settings.frequency * torch.randn(members, 1, values, frequencies))
        bound = math.sqrt(1.5 / frequencies)
        self.weight = nn.Parameter(torch.empty(members, values, 2 * frequencies, numbers).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, values * numbers))

    def forward(self, x: Tensor) -> Tensor:
        """(members, n, values) -> (members, n, values * numbers)."""
        phase = (2 * math.pi) * self.frequency * x[..., None]
        waves = torch.cat([phase.sin(), phase.cos()], -1)  # (members, n, values, 2 * frequencies)
        mixed = torch.einsum("mnvf,mvfd->mnvd", waves, self.weight.to(waves.dtype))
        return functional.relu(mixed.flatten(2) + self.bias)


class ResidualMLP(nn.Module):
    """Residual blocks x + W2 relu(W1 x) between a linear stem and a linear head; the first inputs also as waves.

    The second matrix of a block starts at zero, so that the untrained network is shallow and depth needs no
    normalisation layers, which would cost more than the products when a survey is predicted.
    """

    def __init__(self, members: int, inputs: int, waved: int, outputs: int, settings: Residual) -> None:
        super().__init__()
        self.members, self.waved = members, waved
        width, blocks = settings.width, settings.blocks
        self.waves = Waves(members, settings, waved) if settings.waves else None
        self.stem = Linear(members, inputs + (waved * settings.embedding if settings.waves else 0), width)
        self.first = nn.ModuleList(Linear(members, width, width) for _ in range(blocks))
        self.second = nn.ModuleList(Linear(members, width, width, gain=0.0) for _ in range(blocks))
        self.head = Linear(members, width, outputs, gain=0.1)
        self.dropout = settings.dropout

    def forward(self, x: Tensor) -> Tensor:
        """(members, n, inputs) -> (members, n, outputs)."""
        if self.waves is not None:
            x = torch.cat([x, self.waves(x[..., : self.waved])], -1)
        x = functional.relu(self.stem(x))
        for first, second in zip(self.first, self.second, strict=True):
            inner = functional.relu(first(x))
            if self.training and self.dropout:
                inner = functional.dropout(inner, self.dropout)
            x = x + second(inner)
        return self.head(functional.relu(x))


def tensors_of(**modules: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers of modules, under `<name>.<parameter>`."""
    return {f"{name}.{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}


def load_tensors(tensors: dict[str, Tensor], **modules: nn.Module) -> None:
    """The reverse of `tensors_of`."""
    for name, module in modules.items():
        prefix = f"{name}."
        module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})


def adamw(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW, all parameters in one step."""
    return torch.optim.AdamW(parameters, schedule.lr, weight_decay=schedule.weight_decay, fused=True)


class _Training:
    """All that changes while a network is trained: what its result depends on from here."""

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, ema: bool, generators: dict[str, torch.Generator]
    ) -> None:
        self.network, self.optimizer, self.generators = network, optimizer, generators
        self.average = copy.deepcopy(network) if ema else network
        self.best_state = copy.deepcopy(self.average.state_dict())
        self.best, self.best_epoch, self.unimproved, self.epoch, self.step = math.inf, 0, 0, 0, 0
        self.history: list[dict[str, Any]] = []
        self.ended = False

    def judge(self, loss: float, score: float) -> None:
        """Take the mean loss of an epoch and the validation score after it."""
        told = round(score, 6) if math.isfinite(score) else None
        self.history.append({"epoch": self.epoch, "loss": round(loss, 6), "score": told})
        self.unimproved += 1
        if score < self.best:
            self.best, self.best_epoch, self.unimproved = score, self.epoch, 0
            self.best_state = copy.deepcopy(self.average.state_dict())

    def state(self) -> State:
        """All of it, on whatever device it is and not copied; of a training that has ended, what came out."""
        parts = {"best": self.best_state, "random": {n: g.get_state() for n, g in self.generators.items()}}
        if not self.ended:
            parts["network"] = self.network.state_dict()
            parts |= {f"optimizer{number}": found for number, found in self.optimizer.state_dict()["state"].items()}
            if self.average is not self.network:
                parts["average"] = self.average.state_dict()
        tensors = {f"{part}/{name}": value for part, found in parts.items() for name, value in found.items()}
        counters = ("epoch", "step", "unimproved", "best_epoch", "history", "ended")
        best = self.best if math.isfinite(self.best) else None
        return tensors, {"best": best, **{name: getattr(self, name) for name in counters}}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """The reverse of `state`."""
        for name, value in facts.items():
            setattr(self, name, value)
        self.best = math.inf if facts["best"] is None else facts["best"]
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, value in tensors.items():
            part, _, name = key.partition("/")
            parts[part][name] = value
        for name, generator in self.generators.items():
            generator.set_state(parts["random"][name])
        own = self.network.state_dict()
        self.best_state = {name: value.to(own[name].device) for name, value in parts["best"].items()}
        if self.ended:
            return
        self.network.load_state_dict(parts["network"])
        if self.average is not self.network:
            self.average.load_state_dict(parts["average"])
        optimizer = self.optimizer.state_dict()
        of = "optimizer"
        optimizer["state"] = {int(part.removeprefix(of)): found for part, found in parts.items() if part.startswith(of)}
        self.optimizer.load_state_dict(optimizer)


def train(
    network: nn.Module,
    rows: int,
    members: int,
    loss: Loss,
    score: Callable[[nn.Module], float] | None,
    schedule: Schedule,
    seed: int,
    log: Callable[[str], None],
    optimizer_of: Callable[[list[nn.Parameter], Schedule], torch.optim.Optimizer] = adamw,
    callback: Callback | None = None,
    phase: str = "network",
    until: int | None = None,
    parallel: bool = False,
) -> dict[str, Any]:
    """Train in place; the network ends with the weights that scored best on the validation rows.

    A training that goes on from what `callback` kept of it ends as if it had never been interrupted: the same weights to
    the bit.

    Parameters
    ----------
    network : with parameters of `members` members along their first axis.
    rows : number of training rows, all of them on the network's device.
    loss : of the network, row numbers (members, batch) and a generator of the random numbers that it draws: the mean loss of each
        member, summed.
    score : of a network, smaller is better, on the validation rows; None: the average of the last weights is kept.
    optimizer_of : the optimizer of given parameters.
    callback : is shown every score, and keeps what a killed job goes on from.
    phase : name of this training among those of its model.
    until : epoch after which to stop, the learning rate being that of the whole schedule.
    parallel : on a CPU, compute the gradients of each step in lanes, a part of its rows in each: for steps of some milliseconds.
        The result depends on the number of lanes, which is fixed, and not on the number of cores.

    Returns
    -------
    history (epoch, loss, score), the best epoch and score: JSON-ready.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    callback = callback or Callback()
    device = next(network.parameters()).device
    batch = min(schedule.batch, rows)
    steps = rows // batch
    epochs = schedule.passes_over(rows)
    total = epochs * steps
    last = min(epochs, until or epochs)
    amp = schedule.amp and multiplies_bfloat16(device)
    parameters = list(network.parameters())
    optimizer = optimizer_of(parameters, schedule)
    decay = schedule.ema or (AVERAGE if score is None else 0.0)
    # Torch's own generator, which dropout draws from, would give lanes their numbers in any order.
    one = not parallel or bool(getattr(schedule, "dropout", 0.0))
    with lanes(device, 1 if one else CPU_LANES) as ways:
        generators = [torch.Generator(device).manual_seed(seed + number) for number in range(1 + ways.count)]
        order_of, *drawing = generators
        now = _Training(network, optimizer, decay > 0, _named(generators, device))
        kept = callback.kept(phase)
        if kept is not None:
            now.restore(*kept)
            log(f"{phase}: going on after epoch {now.epoch} of at most {epochs}, where an earlier job was stopped")
        if epochs < schedule.epochs:
            log(
                f"{phase}: {epochs} passes over {rows:,} rows in place of {schedule.epochs}: most_rows is {schedule.most_rows:,}"
            )
        clock = _Clock(now.epoch, last)

        def gradients(part: tuple[Tensor, torch.Generator]) -> tuple[Tensor, tuple[Tensor, ...]]:
            chosen, generator = part
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                value = loss(network, chosen, generator) * (chosen.shape[1] / batch)
            found = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
            return value.detach(), found

        while not now.ended:
            now.epoch += 1
            network.train()
            order = torch.stack([torch.randperm(rows, generator=order_of, device=device) for _ in range(members)])
            running = torch.zeros((), device=device)
            for place in range(steps):
                if schedule.one_cycle:
                    for group in optimizer.param_groups:
                        group["lr"] = schedule.lr * _one_cycle(now.step / total)
                chosen = order[:, place * batch : (place + 1) * batch]
                (value, found), *others = ways.map(
                    gradients, list(zip(chosen.chunk(ways.count, 1), drawing, strict=False))
                )
                for more, further in others:
                    value += more
                    torch._foreach_add_(found, further)
                for parameter, gradient in zip(parameters, found, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                now.step += 1
                running += value
                if decay:
                    weight = 1 - min(decay, (1 + now.step) / (10 + now.step))
                    with torch.no_grad():
                        torch._foreach_lerp_(list(now.average.parameters()), list(network.parameters()), weight)
            mean_loss = float(running) / steps / members
            if not math.isfinite(mean_loss):
                raise TrainingError(
                    f"the loss became {mean_loss} in epoch {now.epoch} of {epochs} (learning rate {schedule.lr:g}, "
                    f"batch {batch}): lower the learning rate of this model in config.yaml, or scale its inputs"
                )
            now.ended = now.epoch == last
            line = f"{phase}: epoch {now.epoch} of {last}: loss {mean_loss:.5g}"
            if score is not None and (now.ended or now.epoch % schedule.look_every == 0):
                now.average.eval()
                with torch.inference_mode():
                    judged = score(now.average)
                now.judge(mean_loss, judged)
                line += f", validation {judged:.5g}, best {now.best:.5g} in epoch {now.best_epoch}"
                callback.look(phase, now.epoch, judged)
                if now.unimproved >= schedule.patience:
                    line += ": the last, for none was better since"
                    now.ended = True
            if clock.due(now.epoch) or now.ended:
                log(line + ("" if now.ended else clock.left(now.epoch)))
            if score is None:
                if now.ended:
                    now.best_state = now.average.state_dict()
            elif now.ended and not math.isfinite(now.best):
                raise TrainingError(
                    "the validation score was never finite: lower the learning rate, or scale the inputs"
                )
            callback.keep(phase, now.state, now.ended)
    network.load_state_dict(now.best_state)
    network.eval()
    return {"history": now.history, "best_epoch": now.best_epoch, "best_score": now.best}


class _Clock:
    """When to log an epoch, and how long the others will take.

    first, last : epochs that are done already, and in all.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._started = self._logged = time.monotonic()

    def due(self, epoch: int) -> bool:
        """After the first epoch, and then every few seconds."""
        now = time.monotonic()
        if epoch > self._first + 1 and now - self._logged < LOG_EVERY:
            return False
        self._logged = now
        return True

    def left(self, epoch: int) -> str:
        """What to add to a line of the log: at most so many seconds are left, by those that epochs have taken."""
        each = (time.monotonic() - self._started) / (epoch - self._first)
        return f", {each * (self._last - epoch):.0f} s left"


def _named(generators: Sequence[torch.Generator], device: torch.device) -> dict[str, torch.Generator]:
    """The given generators and those that torch draws from itself (dropout), by name."""
    every = {str(number): generator for number, generator in enumerate(generators)}
    every["cpu"] = torch.default_generator
    if device.type == "cuda":
        every["cuda"] = torch.cuda.default_generators[device.index]
    return every


def _one_cycle(progress: float) -> float:
    """Share of the highest learning rate after a share of the steps."""
    rise = 0.1
    if progress < rise:
        return 0.04 + 0.96 * progress / rise
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
