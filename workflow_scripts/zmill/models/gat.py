"""The graph attention network as published: every galaxy is a complete graph whose nodes are its bands."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from zmill.models.regression import PointNetwork, PointSettings

ROWS = 4096
"""Graphs computed at a time in inference: the attention of all edges is in memory."""


class GATSettings(PointSettings):
    """Settings of the graph attention network; the defaults are the published version."""

    batch: int = Field(64, ge=1, le=2**20)
    lr: float = Field(1e-3, gt=0, le=10)
    weight_decay: float = Field(1e-5, ge=0, le=10)
    ema: float = Field(0.0, ge=0, lt=1)
    epochs: int = Field(50, ge=1, le=100_000)
    patience: int = Field(10, ge=1, le=100_000)
    hidden: int = Field(16, ge=1, le=2**14)
    """Width of a head."""
    heads: int = Field(4, ge=1, le=100)
    """Heads of the first layer; the second has one."""
    embedding: int = Field(0, ge=0, le=1000)
    """Size of a learned embedding of each band, an input of its node; 0 as published: the network does not know which band is which."""


class GraphAttention(nn.Module):
    """Two graph attention layers (Velickovic et al. 2018), the mean over the nodes, and a linear output."""

    edges: Tensor

    def __init__(self, inputs: int, hidden: int, heads: int, embedding: int) -> None:
        from torch_geometric.nn import GATConv

        super().__init__()
        self.n_inputs = inputs
        self.embedding = nn.Parameter(torch.randn(inputs, embedding)) if embedding else None
        self.first = GATConv(1 + embedding, hidden, heads, add_self_loops=False)
        self.second = GATConv(hidden * heads, hidden, 1, add_self_loops=False)
        self.head = nn.Linear(hidden, 1)
        node = torch.arange(inputs)
        self.register_buffer("edges", torch.cartesian_prod(node, node).T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(1, n, inputs) -> (1, n, 1)."""
        if torch.is_grad_enabled():
            return self._output(x[0])[None]
        return torch.cat([self._output(part) for part in x[0].split(ROWS)])[None]

    def _output(self, x: Tensor) -> Tensor:
        """(n, inputs) -> (n, 1): n graphs as one disconnected graph, whose edges are those of the first graph with shifted indices."""
        shift = torch.arange(len(x), device=x.device) * self.n_inputs
        edges = (self.edges[:, None, :] + shift[:, None]).flatten(1)
        nodes = x.reshape(-1, 1)
        if self.embedding is not None:
            nodes = torch.cat([nodes, self.embedding.repeat(len(x), 1)], 1)
        nodes = functional.elu(self.first(nodes, edges))
        nodes = functional.elu(self.second(nodes, edges))
        return self.head(nodes.view(len(x), self.n_inputs, -1).mean(1))


class GAT(PointNetwork):
    """The network; the nodes are the bands, then further columns."""

    Settings = GATSettings
    quick = {"epochs": 20, "lr": 0.005, "hidden": 8, "heads": 2, "embedding": 2}

    settings: GATSettings

    def build(self) -> nn.Module:
        s = self.settings
        return GraphAttention(self.n_inputs, s.hidden, s.heads, s.embedding)


MODEL = GAT
