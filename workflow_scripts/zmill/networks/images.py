"""Networks over stamps: the published convolutional ones and a residual one; and random symmetries, shifts and noise of stamps.

A stamp has pixels in units of the noise of its band: x = flux / σ. Networks are given arsinh(x / 3), which is proportional to faint
fluxes and the logarithm of bright ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

COMPRESSION = 3.0
"""Fluxes in units of the noise are compressed as arsinh(x / `COMPRESSION`)."""
FULL_SIZE = 32
"""The residual network averages pixels of stamps until they have fewer than twice as many on a side."""


def compressed(x: Tensor) -> Tensor:
    """arsinh(x / 3) of fluxes in units of their noise."""
    return torch.asinh(x / COMPRESSION)


# ---------------------------------------------------------------------------------------------- augmentation


def turned(stamps: Tensor, symmetry: Tensor) -> Tensor:
    """Stamps (n, bands, N, N), each by one of the eight symmetries of a square (n,): 0 to 3 are quarter turns, 4 to 7 these of its mirror image."""
    size = stamps.shape[-1]
    place = torch.arange(size * size, device=stamps.device).view(1, size, size)
    places = torch.cat([(place.flip(-1) if number >= 4 else place).rot90(number % 4, (-2, -1)) for number in range(8)])
    source = places.flatten(1)[symmetry][:, None].expand(-1, stamps.shape[1], -1)
    return stamps.flatten(2).gather(2, source).view_as(stamps)


def shifted(stamps: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Stamps (n, bands, N, N), each shifted by up to `most` pixels along both axes; zeros are shifted in."""
    n, _, size, _ = stamps.shape
    padded = functional.pad(stamps, (most, most, most, most))
    first = torch.randint(0, 2 * most + 1, (2, n, 1), generator=generator, device=stamps.device)
    rows, columns = first + torch.arange(size, device=stamps.device)
    number = torch.arange(n, device=stamps.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------ published networks


class Published(nn.Module):
    """Features of the pixels, to which further inputs are added, then two fully connected layers and one linear output.

    features : layers from (n, bands, N, N) to (n, count). extra : number of further inputs. width : units of the fully connected layers.
    """

    def __init__(self, features: list[nn.Module], count: int, extra: int, width: int, outputs: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*features, nn.Flatten())
        self.dense = nn.Sequential(nn.Linear(count + extra, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, outputs)

    def forward(self, stamps: Tensor, extra: Tensor) -> Tensor:
        """(n, bands, N, N) compressed fluxes and (n, extra) further inputs -> (n, outputs)."""
        return self.head(self.dense(torch.cat([self.features(stamps), extra], 1)))


def _stem(bands: int) -> list[nn.Module]:
    """The first layers of both networks of Theodoropoulos: 16 filters, zero-padded, 64 filters, and a pooling."""
    return [nn.Conv2d(bands, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 64, 3), nn.ReLU(), nn.MaxPool2d(2)]


class Sequential(Published):
    """The *Sequential* network of Theodoropoulos (thesis, after Pasquet et al. 2019): convolutions of 3 × 3 pixels, one after the other.

    After the first layers, `layers` − 1 convolutions with 64 filters and a pooling after every fourth; fully connected layers of 1,024 units.

    Raises
    ------
    ValueError
        Where stamps are too small for the convolutions.
    """

    def __init__(self, bands: int, size: int, extra: int, outputs: int, layers: int) -> None:
        parts, side = _stem(bands), (size - 2) // 2
        for number in range(1, layers):
            parts += [nn.Conv2d(64, 64, 3), nn.ReLU()]
            side -= 2
            if number % 4 == 0:
                parts.append(nn.MaxPool2d(2))
                side //= 2
        if side < 1:
            raise ValueError(
                f"layers: stamps of {size} × {size} pixels are too small for {layers} convolutions: take fewer `layers`"
            )
        super().__init__(parts, 64 * side**2, extra, 1024, outputs)


class Inception(nn.Module):
    """A block of four branches (Szegedy et al. 2015): 1 × 1; 1 × 1 and 3 × 3; 1 × 1 and 5 × 5; 1 × 1 and a pooling over 3 × 3 pixels.

    Each branch has 64 filters, and the block puts out all 256 of them.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, 64, 1), nn.ReLU(), *further)
            for further in (
                [],
                [nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()],
                [nn.Conv2d(64, 64, 5, padding=2), nn.ReLU()],
                [nn.MaxPool2d(3, 1, 1)],
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, side, side) -> (n, 256, side, side)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class GoogLeNet(Published):
    """The *Inception* network of Theodoropoulos (thesis): the first layers of `Sequential`, `layers` blocks `Inception` with a pooling after
    every second one, and fully connected layers of 1,024 units.

    Raises
    ------
    ValueError
        Where stamps are smaller than 4 × 4 pixels.
    """

    def __init__(self, bands: int, size: int, extra: int, outputs: int, layers: int) -> None:
        parts, side = _stem(bands), (size - 2) // 2
        for number in range(1, layers + 1):
            parts.append(Inception(64 if number == 1 else 256))
            if number % 2 == 0 and side > 1:
                parts.append(nn.MaxPool2d(2))
                side //= 2
        if side < 1:
            raise ValueError(f"stamps of {size} × {size} pixels are too small: expected 4 × 4 or more")
        super().__init__(parts, 256 * side**2, extra, 1024, outputs)


class PasquetBlock(nn.Module):
    """An inception block of Pasquet et al. (2019, figure 5): 1 × 1; 1 × 1 and 3 × 3; 1 × 1 and 5 × 5; 1 × 1 and an average over 2 × 2 pixels.

    narrow, wide : filters of the first and of the second layer of a branch. five : whether there is the branch of 5 × 5 pixels.
    """

    def __init__(self, inputs: int, narrow: int, wide: int, five: bool = True) -> None:
        super().__init__()
        kernels = (3, 5) if five else (3,)
        self.outputs = (1 + len(kernels)) * wide + narrow

        def first(filters: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, filters, 1), nn.PReLU()]

        branches = [first(wide)]
        branches += [[*first(narrow), nn.Conv2d(narrow, wide, k, padding=k // 2), nn.PReLU()] for k in kernels]
        branches.append([*first(narrow), nn.ZeroPad2d((0, 1, 0, 1)), nn.AvgPool2d(2, 1)])
        self.branches = nn.ModuleList(nn.Sequential(*branch) for branch in branches)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, side, side) -> (n, outputs, side, side)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class Pasquet(Published):
    """The network of Pasquet et al. (2019, A&A 621, A26, figure 6): a convolution, five inception blocks, and E(B−V) with the features.

    Raises
    ------
    ValueError
        Where stamps are too small for its three poolings.
    """

    def __init__(self, bands: int, size: int, extra: int, outputs: int) -> None:
        if size < FEWEST:
            raise ValueError(f"stamps of {size} × {size} pixels are too small: expected {FEWEST} × {FEWEST} or more")
        parts: list[nn.Module] = [nn.Conv2d(bands, 64, 5, padding=2), nn.PReLU(), nn.AvgPool2d(2)]
        channels = 64
        for narrow, wide, five, pool in BLOCKS:
            block = PasquetBlock(channels, narrow, wide, five)
            channels = block.outputs
            parts += [block, *([nn.AvgPool2d(2)] if pool else [])]
        super().__init__(parts, channels * (size // 8) ** 2, extra, 1096, outputs)


FEWEST = 8
"""Fewest pixels on a side of a stamp for three poolings."""
BLOCKS = ((48, 64, True, False), (64, 92, True, True), (92, 128, True, False), (92, 128, True, True), (92, 128, False, False))  # fmt: skip
"""Blocks of Pasquet et al.: filters of the first and second layers, whether there is a branch of 5 × 5 pixels, and whether a pooling follows."""


# -------------------------------------------------------------------------------------------- residual network


class Block(nn.Module):
    """x + convolution(relu(convolution(relu(x)))). The second convolution is initialized to zero, so that no normalization is needed."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, side, side) -> the same."""
        return x + self.second(functional.relu(self.first(functional.relu(x))))


class ResidualNetwork(nn.Module):
    """Three stages of residual blocks, each with half the pixels on a side and twice the filters of the one before; further inputs join their averages.

    Parameters
    ----------
    bands, size : of the stamps. extra : number of further inputs. outputs : number of outputs.
    width : filters of the first stage. blocks : residual blocks of a stage.
    """

    def __init__(self, bands: int, size: int, extra: int, outputs: int, width: int, blocks: int) -> None:
        super().__init__()
        self.averaged = max(1, size // FULL_SIZE)
        stages: list[nn.Module] = [nn.Conv2d(bands, width // 2, 5, padding=2)]
        channels = width // 2
        for stage in range(3):
            stages += [nn.ReLU(), nn.Conv2d(channels, width << stage, 3, 2, 1)]
            channels = width << stage
            stages += [Block(channels) for _ in range(blocks)]
        self.stages = nn.Sequential(*stages, nn.ReLU())
        hidden = 2 * channels
        self.hidden = nn.Linear(2 * channels + extra, hidden)
        self.second = nn.Linear(hidden, hidden)
        nn.init.zeros_(self.second.weight)
        self.head = nn.Linear(hidden, outputs)
        with torch.no_grad():
            self.head.weight.mul_(0.1)

    def embedding(self, stamps: Tensor) -> Tensor:
        """(n, 2 × filters of the last stage) means over all pixels and over the four in the middle."""
        if self.averaged > 1:
            stamps = functional.avg_pool2d(stamps, self.averaged)
        x = self.stages(stamps.contiguous(memory_format=torch.channels_last))
        middle = x.shape[-1] // 2
        near = slice(max(0, middle - 1), middle + 1)
        return torch.cat([x.mean((2, 3)), x[:, :, near, near].mean((2, 3))], 1)

    def forward(self, stamps: Tensor, extra: Tensor) -> Tensor:
        """(n, bands, N, N) compressed fluxes and (n, extra) further inputs -> (n, outputs)."""
        x = functional.relu(self.hidden(torch.cat([self.embedding(stamps), extra], 1)))
        return self.head(functional.relu(x + self.second(x)))
