"""Networks whose members are trained together in batched matrix products, and the training loop."""

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
"""Decay of the running average of the weights in a training without validation score, where the weights of the last step are noisy."""
LOG_EVERY = 5.0
"""Least time in seconds between two epochs that are logged."""
Loss: TypeAlias = Callable[[nn.Module, Tensor, torch.Generator], Tensor]


class TrainingError(RuntimeError):
    """A training failed. The message names the place and what to change."""


class Schedule(Section):
    """Settings of the training of a network."""

    epochs: int = Field(100, ge=1, le=100_000)
    """Largest number of epochs."""
    max_rows: int = Field(10_000_000, ge=1, le=10**12)
    """Largest number of epochs times training rows: for more rows there are fewer epochs, at least one."""
    batch: int = Field(256, ge=1, le=2**20)
    """Number of rows in a step."""
    lr: float = Field(1e-3, gt=0, le=10)
    """Highest learning rate."""
    one_cycle: bool = True
    """Whether the learning rate rises over the first tenth of the steps and then falls to zero along a cosine; otherwise it is constant."""
    weight_decay: float = Field(0.0, ge=0, le=10)
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the running average of the weights, which is validated and kept; 0: the weights themselves are."""
    patience: int = Field(20, ge=1, le=100_000)
    """Number of validations without a better score after which the training stops."""
    amp: bool = True
    """Whether products are computed in bfloat16 if the device has instructions for them; weights stay in float32."""
    validate_every: int = Field(1, ge=1, le=1000)
    """Number of epochs between two validations."""

    def epochs_for(self, rows: int) -> int:
        """Largest number of epochs for a number of training rows."""
        return min(self.epochs, max(1, self.max_rows // rows))


class Residual(Section):
    """Settings of the architecture of a residual network."""

    width: int = Field(256, ge=8, le=2**14)
    """Number of units in each layer."""
    blocks: int = Field(3, ge=0, le=100)
    """Number of residual blocks of two layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Fraction of the inner units of a block that a training step drops."""
    frequencies: int = Field(16, ge=0, le=1000)
    """Number of frequencies of the periodic embedding of each luptitude and color; 0: no embedding."""
    embedding: int = Field(8, ge=1, le=1000)
    """Number of outputs of the periodic embedding of one input."""
    frequency_scale: float = Field(0.1, gt=0, le=1000)
    """Standard deviation of the initial frequencies, in periods per standard deviation of the input."""


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


class PeriodicEmbedding(nn.Module):
    """Sines and cosines of each input at learned frequencies, followed by a linear layer and ReLU of its own.

    Redshift varies rapidly with color, and a network of ReLU alone learns such functions slowly (Gorishniy, Rubachev & Babenko
    2022, eq. 2, "PLR").
    """

    def __init__(self, members: int, settings: Residual, values: int) -> None:
        super().__init__()
        frequencies, outputs = settings.frequencies, settings.embedding
        self.frequency = nn.Parameter(settings.frequency_scale * torch.randn(members, 1, values, frequencies))
        bound = math.sqrt(1.5 / frequencies)
        self.weight = nn.Parameter(torch.empty(members, values, 2 * frequencies, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(members, 1, values * outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(members, n, values) -> (members, n, values * outputs)."""
        phase = (2 * math.pi) * self.frequency * x[..., None]
        periodic = torch.cat([phase.sin(), phase.cos()], -1)  # (members, n, values, 2 * frequencies)
        mixed = torch.einsum("mnvf,mvfd->mnvd", periodic, self.weight.to(periodic.dtype))
        return functional.relu(mixed.flatten(2) + self.bias)


class ResidualMLP(nn.Module):
    """Residual blocks x + W2 relu(W1 x) between a linear stem and a linear head; the first inputs have a periodic embedding.

    The second matrix of a block is initialized to zero, so that the untrained network is shallow and needs no normalization
    layers. These would cost more than the matrix products when a survey is predicted.

    Parameters
    ----------
    embedded : number of inputs, the first ones, that have a periodic embedding.
    """

    def __init__(self, members: int, inputs: int, embedded: int, outputs: int, settings: Residual) -> None:
        super().__init__()
        self.members, self.embedded = members, embedded
        width, blocks = settings.width, settings.blocks
        self.embedding = PeriodicEmbedding(members, settings, embedded) if settings.frequencies else None
        self.stem = Linear(members, inputs + (embedded * settings.embedding if settings.frequencies else 0), width)
        self.first = nn.ModuleList(Linear(members, width, width) for _ in range(blocks))
        self.second = nn.ModuleList(Linear(members, width, width, gain=0.0) for _ in range(blocks))
        self.head = Linear(members, width, outputs, gain=0.1)
        self.dropout = settings.dropout

    def forward(self, x: Tensor) -> Tensor:
        """(members, n, inputs) -> (members, n, outputs)."""
        if self.embedding is not None:
            x = torch.cat([x, self.embedding(x[..., : self.embedded])], -1)
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
    """The fused AdamW optimizer of all parameters."""
    return torch.optim.AdamW(parameters, schedule.lr, weight_decay=schedule.weight_decay, fused=True)


class _Training:
    """The state of a training: everything that changes in it and that its result depends on."""

    def __init__(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, ema: bool, generators: dict[str, torch.Generator]
    ) -> None:
        self.network, self.optimizer, self.generators = network, optimizer, generators
        self.average = copy.deepcopy(network) if ema else network
        self.best_state = copy.deepcopy(self.average.state_dict())
        self.best, self.best_epoch, self.unimproved, self.epoch, self.step = math.inf, 0, 0, 0, 0
        self.history: list[dict[str, Any]] = []
        self.ended = False

    def record(self, loss: float, score: float) -> None:
        """Record the mean loss of an epoch and the validation score after it."""
        rounded = round(score, 6) if math.isfinite(score) else None
        self.history.append({"epoch": self.epoch, "loss": round(loss, 6), "score": rounded})
        self.unimproved += 1
        if score < self.best:
            self.best, self.best_epoch, self.unimproved = score, self.epoch, 0
            self.best_state = copy.deepcopy(self.average.state_dict())

    def state(self) -> State:
        """The tensors, not copied and on their device, and a JSON-ready dictionary; for a training that has ended, its result only."""
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
    """Train a network in place; it ends with the weights of the best validation score.

    A training that resumes from the state that `callback` saved ends with bit-identical weights to one without interruption.

    Parameters
    ----------
    network : parameters have the `members` members along their first axis.
    rows : number of training rows, which are on the network's device.
    loss : function of the network, row indices (members, batch) and a random generator; returns the sum over members of their
        mean loss.
    score : function of a network that returns its score on the validation rows, smaller is better; None: the running average of
        the last weights is kept.
    optimizer_of : function that makes the optimizer of given parameters.
    callback : receives every score, and saves the state from which a killed job resumes.
    phase : name of this training among those of its model.
    until : epoch after which to stop; the learning rate still follows the full schedule.
    parallel : on a CPU, whether the rows of each step are divided among lanes (`zmill.networks.parallel`), for steps of some
        milliseconds. The result depends on the number of lanes, which is fixed, and not on the number of cores.

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
    epochs = schedule.epochs_for(rows)
    total = epochs * steps
    last = min(epochs, until or epochs)
    amp = schedule.amp and multiplies_bfloat16(device)
    parameters = list(network.parameters())
    optimizer = optimizer_of(parameters, schedule)
    decay = schedule.ema or (AVERAGE if score is None else 0.0)
    # Dropout draws from torch's global generator, from which concurrent lanes would draw in any order.
    one = not parallel or bool(getattr(schedule, "dropout", 0.0))
    with lanes(device, 1 if one else CPU_LANES) as ways:
        generators = [torch.Generator(device).manual_seed(seed + number) for number in range(1 + ways.count)]
        order_of, *drawing = generators
        training = _Training(network, optimizer, decay > 0, _named(generators, device))
        saved = callback.saved(phase)
        if saved is not None:
            training.restore(*saved)
            log(f"{phase}: resuming after epoch {training.epoch} of at most {epochs}, where an earlier job was stopped")
        if epochs < schedule.epochs:
            log(
                f"{phase}: {epochs} epochs of {rows:,} rows instead of {schedule.epochs}, because max_rows is {schedule.max_rows:,}"
            )
        clock = _Clock(training.epoch, last)

        def gradients(part: tuple[Tensor, torch.Generator]) -> tuple[Tensor, tuple[Tensor, ...]]:
            chosen, generator = part
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                value = loss(network, chosen, generator) * (chosen.shape[1] / batch)
            found = torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True)
            return value.detach(), found

        while not training.ended:
            training.epoch += 1
            network.train()
            order = torch.stack([torch.randperm(rows, generator=order_of, device=device) for _ in range(members)])
            running = torch.zeros((), device=device)
            for step in range(steps):
                if schedule.one_cycle:
                    for group in optimizer.param_groups:
                        group["lr"] = schedule.lr * _one_cycle(training.step / total)
                chosen = order[:, step * batch : (step + 1) * batch]
                (value, found), *others = ways.map(
                    gradients, list(zip(chosen.chunk(ways.count, 1), drawing, strict=False))
                )
                for other_value, other_gradients in others:
                    value += other_value
                    torch._foreach_add_(found, other_gradients)
                for parameter, gradient in zip(parameters, found, strict=True):
                    parameter.grad = gradient
                optimizer.step()
                training.step += 1
                running += value
                if decay:
                    weight = 1 - min(decay, (1 + training.step) / (10 + training.step))
                    with torch.no_grad():
                        torch._foreach_lerp_(list(training.average.parameters()), list(network.parameters()), weight)
                        for kept, buffer in zip(training.average.buffers(), network.buffers(), strict=True):
                            kept.copy_(buffer)
            mean_loss = float(running) / steps / members
            if not math.isfinite(mean_loss):
                raise TrainingError(
                    f"the loss became {mean_loss} in epoch {training.epoch} of {epochs} (learning rate {schedule.lr:g}, "
                    f"batch {batch}): lower the learning rate of this model in config.yaml, or scale its inputs"
                )
            training.ended = training.epoch == last
            line = f"{phase}: epoch {training.epoch} of {last}: loss {mean_loss:.5g}"
            if score is not None and (training.ended or training.epoch % schedule.validate_every == 0):
                training.average.eval()
                with torch.inference_mode():
                    validation = score(training.average)
                training.record(mean_loss, validation)
                line += f", validation {validation:.5g}, best {training.best:.5g} in epoch {training.best_epoch}"
                callback.validated(phase, training.epoch, validation)
                if training.unimproved >= schedule.patience:
                    line += ": stopping, because the validation score no longer improves"
                    training.ended = True
            if clock.logs(training.epoch) or training.ended:
                log(line + ("" if training.ended else clock.left(training.epoch)))
            if score is None:
                if training.ended:
                    training.best_state = training.average.state_dict()
            elif training.ended and not math.isfinite(training.best):
                raise TrainingError(
                    "the validation score was never finite: lower the learning rate, or scale the inputs"
                )
            callback.save(phase, training.state, training.ended)
    network.load_state_dict(training.best_state)
    network.eval()
    return {"history": training.history, "best_epoch": training.best_epoch, "best_score": training.best}


class _Clock:
    """Decides which epochs are logged, and estimates the time left.

    first, last : number of epochs that an earlier job completed, and of all epochs.
    """

    def __init__(self, first: int, last: int) -> None:
        self._first, self._last = first, last
        self._started = self._logged = time.monotonic()

    def logs(self, epoch: int) -> bool:
        """Whether to log an epoch: the first, and then one every few seconds."""
        now = time.monotonic()
        if epoch > self._first + 1 and now - self._logged < LOG_EVERY:
            return False
        self._logged = now
        return True

    def left(self, epoch: int) -> str:
        """Text of the largest time left, from the mean time of an epoch so far."""
        each = (time.monotonic() - self._started) / (epoch - self._first)
        return f", {each * (self._last - epoch):.0f} s left"


def _named(generators: Sequence[torch.Generator], device: torch.device) -> dict[str, torch.Generator]:
    """The given generators and the global ones of torch (for dropout), by name."""
    every = {str(number): generator for number, generator in enumerate(generators)}
    every["cpu"] = torch.default_generator
    if device.type == "cuda":
        every["cuda"] = torch.cuda.default_generators[device.index]
    return every


def _one_cycle(progress: float) -> float:
    """Learning rate as a fraction of the highest, after a fraction of the steps."""
    rise = 0.1
    if progress < rise:
        return 0.04 + 0.96 * progress / rise
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))
