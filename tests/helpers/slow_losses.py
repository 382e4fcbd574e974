"""What the losses must give, image by image and pair by pair, in float64.

Each takes the loss, for its settings and parameters, the student's and the teacher's values and the
labels. Gradients are autograd's: rows of zeros and coinciding images have none here.
"""

import math
from collections.abc import Iterable
from itertools import pairwise, permutations, product

import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn import functional

from .truth import half_even


def pooled(x: Tensor, height: int, width: int) -> Tensor:
    """Average ``[B, C, H, W]`` over the windows of adaptive pooling."""

    def window(position: int, outputs: int, inputs: int) -> slice:
        start = math.floor(position * inputs / outputs)
        return slice(start, math.ceil((position + 1) * inputs / outputs))

    rows = [
        torch.stack(
            [
                x[:, :, window(i, height, x.shape[2]), window(j, width, x.shape[3])].mean((2, 3))
                for j in range(width)
            ],
            2,
        )
        for i in range(height)
    ]
    return torch.stack(rows, 2)


def alike(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    size = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
    return pooled(s, *size), pooled(t, *size)


def unit(x: Tensor) -> Tensor:
    return x / (x * x).sum().sqrt()


def mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack([*values]).mean()


def total(values: Iterable[Tensor]) -> Tensor:
    return torch.stack([*values]).sum()


def at(loss, student, teacher, labels) -> Tensor:
    def attention(maps: Tensor) -> Tensor:
        return unit((maps**2).mean(0).flatten())

    pairs = [alike(s, t) for s, t in zip(student, teacher, strict=True)]
    return total(
        mean(((attention(a) - attention(b)) ** 2).mean() for a, b in zip(s, t, strict=True))
        for s, t in pairs
    )


def sp(loss, student, teacher, labels) -> Tensor:
    def gram(maps: Tensor) -> list[Tensor]:
        return [unit(torch.stack([(a * b).sum() for b in maps])) for a in maps]

    pairs = zip(student, teacher, strict=True)
    return total(
        ((torch.stack(gram(s)) - torch.stack(gram(t))) ** 2).sum() / len(s) ** 2 for s, t in pairs
    )


def nst(loss, student, teacher, labels) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return mean([(unit(u.flatten()) @ unit(v.flatten())) ** 2 for u, v in product(a, b)])

    def discrepancy(a: Tensor, b: Tensor) -> Tensor:
        return kernel(b, b) + kernel(a, a) - 2 * kernel(a, b)

    pairs = [alike(s, t) for s, t in zip(student, teacher, strict=True)]
    return total(mean(map(discrepancy, s, t)) for s, t in pairs)


def rkd(loss, student, teacher, labels) -> Tensor:
    def smooth(x: Tensor) -> Tensor:
        return x * x / 2 if abs(x) < 1 else abs(x) - 0.5

    def distances(x: Tensor) -> dict:
        found = {(i, j): (x[i] - x[j]).norm() for i, j in permutations(range(len(x)), 2)}
        return {pair: d / mean([*found.values()]) for pair, d in found.items()}

    def cosine(x: Tensor, i: int, j: int, k: int) -> Tensor:
        return unit(x[j] - x[i]) @ unit(x[k] - x[i])

    def of_features(s: Tensor, t: Tensor) -> Tensor:
        (ours, theirs), count = (distances(s), distances(t)), len(s)
        by_distance = total(smooth(d - theirs[pair]) for pair, d in ours.items()) / count**2
        triplets = [(i, j, k) for i, j, k in product(range(count), repeat=3) if i not in (j, k)]
        gaps = (smooth(cosine(s, *triplet) - cosine(t, *triplet)) for triplet in triplets)
        return loss.distance_weight * by_distance + loss.angle_weight * total(gaps) / count**3

    return total(map(of_features, student, teacher))


def softmax(x: Tensor) -> Tensor:
    return x.exp() / x.exp().sum()


def kl(t: Tensor, s: Tensor) -> Tensor:
    return (t * (t / s).log()).sum()


def dkd(loss, student, teacher, labels) -> Tensor:
    def of_logits(s: Tensor, t: Tensor, y: int) -> Tensor:
        p, q = softmax(s / loss.temperature), softmax(t / loss.temperature)
        others = [c for c in range(len(s)) if c != y]
        target = kl(torch.stack([q[y], 1 - q[y]]), torch.stack([p[y], 1 - p[y]]))
        rest = kl(q[others] / q[others].sum(), p[others] / p[others].sum())
        return loss.alpha * target + loss.beta * rest

    return loss.temperature**2 * mean(map(of_logits, student[0], teacher[0], labels.tolist()))


def normalised(y: Tensor, norm) -> Tensor:
    """Apply a BatchNorm in training."""
    channels = y.transpose(0, 1).flatten(1)
    centred = channels - channels.mean(1, keepdim=True)
    scaled = centred / ((centred**2).mean(1, keepdim=True) + norm.eps).sqrt()
    found = scaled * norm.weight[:, None] + norm.bias[:, None]
    return found.view(y.shape[1], len(y), *y.shape[2:]).transpose(0, 1)


def fitnet(loss, student, teacher, labels) -> Tensor:
    def regressed(regressor, s: Tensor, t: Tensor) -> Tensor:
        layer, norm, _ = regressor
        if s.shape[2] * 2 == t.shape[2]:
            y = functional.conv_transpose2d(s, layer.weight, layer.bias, 2, 1)
        elif s.shape[2] == 2 * t.shape[2]:
            y = functional.conv2d(s, layer.weight, layer.bias, 2, 1)
        else:
            sizes = [1 + a - b for a, b in zip(s.shape[2:], t.shape[2:], strict=True)]
            assert list(layer.weight.shape[2:]) == sizes
            y = functional.conv2d(s, layer.weight, layer.bias)
        return normalised(y, norm).clamp(min=0)

    triples = zip(loss.regressors, student, teacher, strict=True)
    return total(((regressed(r, s, t) - t) ** 2).mean() for r, s, t in triples)


def cc(loss, student, teacher, labels) -> Tensor:
    def of_features(a, b, s: Tensor, t: Tensor) -> Tensor:
        d = [abs(a.weight @ x + a.bias - b.weight @ y - b.bias) for x, y in zip(s, t, strict=True)]
        return mean((one * other).sum() for one, other in pairwise(d))

    return total(
        map(of_features, loss.student_embeddings, loss.teacher_embeddings, student, teacher)
    )


def pkt(loss, student, teacher, labels) -> Tensor:
    def probabilities(x: Tensor, i: int) -> Tensor:
        near = torch.stack([(unit(x[i]) @ unit(other) + 1) / 2 for other in x])
        return near / near.sum()

    return total(
        kl(probabilities(t, i), probabilities(s, i)) / len(s) ** 2
        for s, t in zip(student, teacher, strict=True)
        for i in range(len(s))
    )


def vid(loss, student, teacher, labels) -> Tensor:
    def likelihood(means, theta: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """Return what the teacher's channels ``[C]`` have at one pixel."""
        first, second, third = (layer.weight[:, :, 0, 0] for layer in means[::2])
        hidden = (second @ (first @ s).clamp(min=0)).clamp(min=0)
        variance = (1 + theta.flatten().exp()).log() + 1e-5
        return Normal(third @ hidden, variance.sqrt()).log_prob(t) + math.log(2 * math.pi) / 2

    def of_maps(means, theta: Tensor, s: Tensor, t: Tensor) -> Tensor:
        s, t = (maps.flatten(2).transpose(1, 2).flatten(0, 1) for maps in alike(s, t))
        return -mean(likelihood(means, theta, a, b).mean() for a, b in zip(s, t, strict=True))

    return total(map(of_maps, loss.means, loss.thetas, student, teacher))


def dist(loss, student, teacher, labels) -> Tensor:
    def correlation(a: Tensor, b: Tensor) -> Tensor:
        return torch.corrcoef(torch.stack([a, b]))[0, 1]

    def of_logits(s: Tensor, t: Tensor) -> Tensor:
        p, q = (torch.stack([softmax(row / loss.temperature) for row in x]) for x in (s, t))
        inter, intra = mean(map(correlation, p, q)), mean(map(correlation, p.T, q.T))
        return loss.temperature**2 * (loss.beta * (1 - inter) + loss.gamma * (1 - intra))

    return total(map(of_logits, student, teacher))


def ft(loss, student, teacher, labels) -> Tensor:
    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.1 * x)

    def paraphrased(encoder, x: Tensor) -> Tensor:
        for layer in encoder[::2]:
            x = leaky(functional.conv2d(x, layer.weight, layer.bias, padding=1))
        return x.detach()

    def translated(translator, x: Tensor) -> Tensor:
        for layer, norm in zip(translator[::3], translator[1::3], strict=True):
            x = leaky(normalised(functional.conv2d(x, layer.weight, layer.bias, padding=1), norm))
        return x

    def of_maps(encoder, translator, s: Tensor, t: Tensor) -> Tensor:
        s, t = alike(translated(translator, s), paraphrased(encoder, t))
        rows = zip(s, t, strict=True)
        return mean(
            abs(unit((a**2).mean(0).flatten()) - unit((b**2).mean(0).flatten())).mean()
            for a, b in rows
        )

    return total(map(of_maps, loss.encoders, loss.translators, student, teacher))


def squat(loss, student, teacher, labels) -> Tensor:
    def quantized(quantizer, x: Tensor) -> Tensor:  # LSQ, unsigned
        codes = half_even((x / quantizer.step.detach()).clamp(0, 2**quantizer.bits - 1))
        return codes * quantizer.step.detach()

    return total(
        ((s - quantized(q, t)) ** 2).mean()
        for q, s, t in zip(loss.quantizers, student, teacher, strict=True)
    )
