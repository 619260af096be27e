"""SelfPatch on DINO as the authors' code computes it, the networks and the training step, to be slow and obvious.

Written from the description of alinlab/SelfPatch 81aef149 and facebookresearch/dino 7c446df: attention as a matrix and a softmax, the
positives of every patch gathered before anything else is done with them, a pair of views at a time with its own log-softmax, and
parameters one by one in clipping, AdamW and the moving average. Parameters have our names, so that weights can be exchanged.

Shapes: V views, B images, N patches, D channels, k positives, K prototypes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tests.references.vit import attention, positions

GLOBAL_VIEWS = 2
STUDENT_TEMPERATURE = 0.1
CENTRE_MOMENTUM = 0.9
PATCH_WEIGHT = 0.1
NORM_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Dimensions:
    """Dimensions that the two networks share."""

    dim: int
    depth: int
    num_heads: int
    patch_size: int
    grid_side: int  # of the stored positions
    out_dim: int
    out_dim_patch: int
    hidden_dim: int
    bottleneck_dim: int
    k: int
    window: int = 3


class Block(nn.Module):
    def __init__(self, dim: int, num_heads: int, drop_path: float) -> None:
        super().__init__()
        self.num_heads, self.drop_path = num_heads, drop_path
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def kept(self, branch_BND: Tensor) -> Tensor:
        """Stochastic depth: some images' branch is left out."""
        if not self.drop_path or not self.training:
            return branch_BND
        keep = 1 - self.drop_path
        return branch_BND.div(keep) * branch_BND.new_empty(len(branch_BND), 1, 1).bernoulli_(keep)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        joint = self.attn["qkv"](self.norm1(tokens_BND)).chunk(3, dim=2)
        tokens_BND = tokens_BND + self.kept(self.attn["proj"](attention(joint, self.num_heads)))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(tokens_BND)))
        return tokens_BND + self.kept(self.mlp["fc2"](hidden))


class Backbone(nn.Module):
    def __init__(self, sizes: Dimensions, drop_path_rate: float) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, sizes.dim, sizes.patch_size, stride=sizes.patch_size)})
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes.grid_side**2, sizes.dim))
        rates = torch.linspace(0, drop_path_rate, sizes.depth).tolist()
        self.blocks = nn.ModuleList([Block(sizes.dim, sizes.num_heads, rate) for rate in rates])

    def forward(self, images_B3SS: Tensor) -> Tensor:
        maps_BDhw = self.patch_embed["proj"](images_B3SS)
        stored_1ND = positions(self.pos_embed, maps_BDhw.shape[2:], has_cls=False, has_registers=False)
        tokens_BND = maps_BDhw.flatten(2).transpose(1, 2) + stored_1ND
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return tokens_BND


class ClassAttentionBlock(nn.Module):
    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.query, self.key, self.value, self.projection = (nn.Linear(dim, dim) for _ in range(4))
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, patches_BND: Tensor, cls_B1D: Tensor) -> Tensor:
        tokens_BLD = self.norm1(torch.cat([cls_B1D, patches_BND], dim=1))
        parts = self.query(tokens_BLD[:, :1]), self.key(tokens_BLD), self.value(tokens_BLD)
        cls_B1D = cls_B1D + self.projection(attention(parts, self.num_heads))
        return cls_B1D + self.mlp(self.norm2(cls_B1D))


@cache
def wrapped_window(side: int, window: int, device: torch.device) -> Tensor:
    """Patches around each patch [N, window^2 - 1]; what leaves the image comes in on the other side."""
    offsets = range(-(window // 2), window // 2 + 1)
    rows = []
    for y, x in product(range(side), repeat=2):
        around = {(y + dy) % side * side + (x + dx) % side for dy, dx in product(offsets, repeat=2)}
        rows.append(sorted(around - {y * side + x}))
    return torch.tensor(rows, device=device)


class Aggregation(nn.Module):
    def __init__(self, sizes: Dimensions) -> None:
        super().__init__()
        self.k, self.window = sizes.k, sizes.window
        self.cls_token = nn.Parameter(torch.zeros(1, 1, sizes.dim))
        self.blocks = nn.ModuleList([ClassAttentionBlock(sizes.dim, sizes.num_heads) for _ in range(2)])
        self.norm = nn.LayerNorm(sizes.dim, eps=NORM_EPS)

    def positives(self, patches_BND: Tensor) -> Tensor:
        """The vectors of the most similar patches around each patch, [B*N, k, D]."""
        count, width = patches_BND.shape[1:]
        around_NC = wrapped_window(round(count**0.5), self.window, patches_BND.device)
        directions = F.normalize(patches_BND, dim=-1)
        similarity = directions[:, around_NC] @ directions.unsqueeze(2).transpose(-2, -1)
        best = similarity.squeeze(-1).topk(self.k, dim=-1).indices.view(-1, self.k, 1)
        candidates = patches_BND[:, around_NC].view(-1, around_NC.shape[1], width)
        return candidates.gather(1, best.expand(-1, -1, width))

    def forward(self, patches_BND: Tensor, as_teacher: bool) -> Tensor:
        """[B, 1 + N, D]: the image's CLS token, and the teacher's summaries of positives or the student's patches, normed."""
        cls = self.cls_token.expand(len(patches_BND), -1, -1)
        targets = self.cls_token.expand(patches_BND.shape[:2].numel(), -1, -1)
        positives = self.positives(patches_BND) if as_teacher else None
        for block in self.blocks:
            cls = block(patches_BND, cls)
            if positives is not None:
                targets = block(positives, targets)
        patches = patches_BND if positives is None else targets.reshape(patches_BND.shape)
        return self.norm(torch.cat([cls, patches], dim=1))


class Head(nn.Module):
    def __init__(self, sizes: Dimensions, out_dim: int) -> None:
        super().__init__()
        first, second = nn.Linear(sizes.dim, sizes.hidden_dim), nn.Linear(sizes.hidden_dim, sizes.hidden_dim)
        self.mlp = nn.Sequential(first, nn.GELU(), second, nn.GELU(), nn.Linear(sizes.hidden_dim, sizes.bottleneck_dim))
        self.last_layer = weight_norm(nn.Linear(sizes.bottleneck_dim, out_dim, bias=False))
        self.last_layer.parametrizations.weight.original0.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.last_layer(F.normalize(self.mlp(tokens), dim=-1))


class Network(nn.Module):
    def __init__(self, sizes: Dimensions, drop_path_rate: float = 0.0) -> None:
        super().__init__()
        self.sizes = sizes
        self.backbone = Backbone(sizes, drop_path_rate)
        projections = {"cls": Head(sizes, sizes.out_dim), "patch": Head(sizes, sizes.out_dim_patch)}
        self.heads = nn.ModuleDict({"aggregation": Aggregation(sizes), **projections})

    def forward(self, images: Tensor, as_teacher: bool) -> tuple[Tensor, Tensor]:
        """Logits of the CLS token [VB, 1, K] and of the patches [VB, N, K]."""
        tokens = self.heads["aggregation"](self.backbone(images), as_teacher)
        return self.heads["cls"](tokens[:, :1]), self.heads["patch"](tokens[:, 1:])


def view_by_view(groups: Sequence[tuple[Tensor, Tensor]], views: int) -> list[tuple[Tensor, Tensor]]:
    """The logits of each view, from those of the views of each size."""
    counts = GLOBAL_VIEWS, views - GLOBAL_VIEWS
    chunks = [(cls.chunk(count), patches.chunk(count)) for (cls, patches), count in zip(groups, counts, strict=True)]
    return [pair for cls, patches in chunks for pair in zip(cls, patches, strict=True)]


def cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    return torch.sum(-target * F.log_softmax(logits / STUDENT_TEMPERATURE, dim=-1), dim=-1).mean()


class Loss:
    """Cross-entropies and centres."""

    def __init__(self, sizes: Dimensions, device: torch.device) -> None:
        self.centre = torch.zeros(1, 1, sizes.out_dim, device=device)
        self.patch_centre = torch.zeros(1, sizes.out_dim_patch, device=device)

    def __call__(
        self, student: Sequence[tuple[Tensor, Tensor]], teacher: Sequence[tuple[Tensor, Tensor]], temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Total, CLS and patch loss of the views' logits; then the centres move."""
        cls_terms, patch_terms = [], []
        for index, (teacher_cls, teacher_patches) in enumerate(teacher):
            target = F.softmax((teacher_cls - self.centre) / temperature, dim=-1).detach()
            for other, (student_cls, student_patches) in enumerate(student):
                if other == index:
                    patch_target = F.softmax((teacher_patches - self.patch_centre) / temperature, dim=-1).detach()
                    patch_terms.append(cross_entropy(patch_target, student_patches))
                elif index < GLOBAL_VIEWS:
                    cls_terms.append(cross_entropy(target, student_cls))
        cls_loss = torch.stack(cls_terms).mean()
        patch_loss = torch.stack(patch_terms).mean()
        with torch.no_grad():
            self.centre = self._moved(self.centre, torch.cat([cls for cls, _ in teacher]).mean(0, keepdim=True))
            rows = sum(patches.shape[:2].numel() for _, patches in teacher)
            total = torch.stack([patches.sum(1).sum(0, keepdim=True) for _, patches in teacher]).sum(0)
            self.patch_centre = self._moved(self.patch_centre, total / rows)
        return cls_loss + PATCH_WEIGHT * patch_loss, cls_loss, patch_loss

    @staticmethod
    def _moved(centre: Tensor, mean: Tensor) -> Tensor:
        return centre * CENTRE_MOMENTUM + mean * (1 - CENTRE_MOMENTUM)


def parameter_groups(network: nn.Module) -> list[dict]:
    """Biases and vectors do not decay."""
    trained = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    exempt = {name for name, parameter in trained if name.endswith(".bias") or parameter.ndim == 1}
    return [
        {"params": [parameter for name, parameter in trained if name not in exempt]},
        {"params": [parameter for name, parameter in trained if name in exempt], "weight_decay": 0.0},
    ]


def clip_gradients(network: nn.Module, limit: float) -> None:
    for parameter in network.parameters():
        if parameter.grad is not None:
            factor = limit / (parameter.grad.norm(2) + 1e-6)
            if factor < 1:
                parameter.grad.mul_(factor)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Values in one step."""

    lr: float
    weight_decay: float
    momentum: float
    temperature: float
    clip_grad: float
    freeze_last_layer: bool


def training_steps(
    student: Network,
    teacher: Network,
    steps: Iterable[tuple[Sequence[Tensor], Schedule]],
    half_precision: bool = False,
) -> Iterator[dict[str, float]]:
    """The losses of each step, on crops [B, 3, S, S]: two global ones, then local ones of one other size.

    Half precision is float16 with loss scaling, for GPUs only.
    """
    device = next(student.parameters()).device
    teacher.requires_grad_(False)
    criterion = Loss(student.sizes, device)
    optimizer = torch.optim.AdamW(parameter_groups(student), foreach=False, fused=False)
    scaler = torch.amp.GradScaler(device.type, enabled=half_precision)
    for crops, now in steps:
        for group in optimizer.param_groups:
            group["lr"] = now.lr
        optimizer.param_groups[0]["weight_decay"] = now.weight_decay
        with torch.autocast(device.type, dtype=torch.float16, enabled=half_precision):
            sizes = torch.cat(list(crops[:GLOBAL_VIEWS])), torch.cat(list(crops[GLOBAL_VIEWS:]))
            with torch.no_grad():
                targets = view_by_view([teacher(images, as_teacher=True) for images in sizes], len(crops))
            outputs = view_by_view([student(images, as_teacher=False) for images in sizes], len(crops))
            loss, cls_loss, patch_loss = criterion(outputs, targets, now.temperature)
        losses = {"loss": loss.item(), "cls_loss": cls_loss.item(), "patch_loss": patch_loss.item()}
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_gradients(student, now.clip_grad)
        if now.freeze_last_layer:
            for name, parameter in student.named_parameters():
                if ".last_layer." in name:
                    parameter.grad = None
        scaler.step(optimizer)
        scaler.update()
        with torch.no_grad():
            for moved, towards in zip(teacher.parameters(), student.parameters(), strict=True):
                moved.data.mul_(now.momentum).add_((1 - now.momentum) * towards.detach().data)
        yield losses
