"""Linears that make queries, keys and values, and what is made of them."""

import torch
from torch import nn

BATCH, SEQ, HEADS, DIM = 2, 5, 3, 4
WIDTH = HEADS * DIM


def heads_of(x, count=HEADS):
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def merged(y):
    return y.transpose(1, 2).flatten(2)


def projections(*biases, out=(WIDTH, WIDTH, WIDTH)):
    torch.manual_seed(0)
    return [nn.Linear(WIDTH, size, bias=bias) for bias, size in zip(biases, out, strict=True)]
