"""The model and the step of the trainer's bench, as PyTorch users write them: eager, float32, AdamW over groups of tensors.

Reads sizes as JSON from the first argument; then, for every line "N" on standard input, trains N steps and prints one line of JSON.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

sizes = json.loads(sys.argv[1])
torch.set_num_threads(sizes["threads"])
torch.manual_seed(0)
B, L, P = sizes["batch"], sizes["length"], sizes["visual_tokens"]
attention_in_one = getattr(F, "scaled_dot_product_attention", None)


def attend(q, k, v, mask):
    """q, k, v [B, N, L, H] -> [B, N, L, H]; fused where this PyTorch has it."""
    if attention_in_one is not None:
        return attention_in_one(q, k, v, is_causal=mask is not None)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return F.softmax(scores if mask is None else scores + mask, dim=-1) @ v


class Attention(nn.Module):
    def __init__(self, width, heads, bias):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.output = nn.Linear(width, width, bias=bias)

    def forward(self, x, turn=None, mask=None):
        split = lambda y: y.view(*y.shape[:2], self.heads, -1).transpose(1, 2)
        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        if turn is not None:
            q, k = turn(q), turn(k)
        return self.output(attend(q, k, v, mask).transpose(1, 2).reshape(x.shape))


class EncoderBlock(nn.Module):
    def __init__(self, width, heads, mlp):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, bias=True)
        self.up, self.down = nn.Linear(width, mlp), nn.Linear(mlp, width)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        y = self.up(self.norm2(x))
        return x + self.down(y * torch.sigmoid(1.702 * y))


class Encoder(nn.Module):
    def __init__(self, side, patch, width, depth, heads, mlp):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.first = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(EncoderBlock(width, heads, mlp) for _ in range(depth))

    def forward(self, pixels):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], 1, -1), x], dim=1)
        x = self.norm(x + self.positions)
        for block in self.blocks:
            x = block(x)
        return x[:, 1:]


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class DecoderBlock(nn.Module):
    def __init__(self, width, heads, mlp):
        super().__init__()
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, heads, bias=False)
        self.gate = nn.Linear(width, mlp, bias=False)
        self.up = nn.Linear(width, mlp, bias=False)
        self.down = nn.Linear(mlp, width, bias=False)

    def forward(self, x, turn, mask):
        x = x + self.attention(self.norm1(x), turn, mask)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class LanguageModel(nn.Module):
    def __init__(self, vocabulary, width, depth, heads, mlp, theta):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads, mlp) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        half = width // heads // 2
        angles = torch.outer(torch.arange(L), theta ** (-torch.arange(half) / half)).repeat(1, 2)
        self.cos, self.sin = angles.cos(), angles.sin()
        self.mask = torch.full((L, L), float("-inf")).triu(1)

    def forward(self, x):
        def turn(q):
            a, b = q.chunk(2, dim=-1)
            return q * self.cos + torch.cat([-b, a], dim=-1) * self.sin

        for block in self.blocks:
            x = block(x, turn, self.mask)
        return self.norm(x)


vision, language = sizes["vision"], sizes["language"]
encoder = Encoder(**vision).eval().requires_grad_(False)
layers = [nn.Linear(vision["width"], language["width"])]
for _ in range(sizes["projector_layers"] - 1):
    layers += [nn.GELU(), nn.Linear(language["width"], language["width"])]
projector = nn.Sequential(*layers)
model = LanguageModel(**language)
trained = [*projector.parameters(), *model.parameters()]
optimizer = torch.optim.AdamW(trained, lr=5e-4, betas=(0.9, 0.98), weight_decay=0.05, foreach=True)

pixels = torch.rand(B, 3, vision["side"], vision["side"])
ids = torch.randint(language["vocabulary"], (B, L - P))
targets = torch.randint(language["vocabulary"], (B * (L - P),))


def step():
    with torch.no_grad():
        features = encoder(pixels)
    x = torch.cat([projector(features), model.embedding(ids)], dim=1)
    hidden = model(x)[:, P:].reshape(-1, language["width"])
    loss = F.cross_entropy(model.head(hidden), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    return loss.item()


counted = sum(p.numel() for p in trained)
print(json.dumps({"version": torch.__version__, "parameters": counted, "fused_attention": attention_in_one is not None}), flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        loss = step()
    print(json.dumps({"ms": (time.perf_counter() - start) * 1000, "loss": loss}), flush=True)
