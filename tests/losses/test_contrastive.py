"""CRD: the paper's sums, one score at a time; draws; banks that follow; what it refuses."""

import math

import pytest
import torch

from daqakd import InputError
from daqakd.augment import Batch
from daqakd.losses import CRD, Setup, contrastive

LABELS = torch.tensor([0, 2, 1, 0, 2, 2, 1, 0, 2, 1, 0, 2])
POOL = torch.tensor([0, 1, 2, 4, 5, 6, 7, 9, 10, 11])  # 3 and 8 are held out


def batch_of(index, labels=LABELS):
    index = torch.tensor(index)
    return Batch(torch.zeros(len(index), 3, 2, 2), labels[index], index)


def features(count, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    sizes = ((count, 5), (count, 7))
    return [torch.randn(s, generator=generator, dtype=dtype, requires_grad=True) for s in sizes]


def prepared(index=(0, 4, 6), negatives=9, dtype=torch.float64, **options):
    torch.manual_seed(1)
    loss = CRD(dimensions=4, negatives=negatives, **options)
    own, wanted = features(len(index), seed=3, dtype=torch.float32)
    setup = Setup(None, None, [own], [wanted], batch_of(index), LABELS, POOL, 3, 11)
    loss.prepare(setup)
    return loss.to(dtype).train(), setup


def one_by_one(loss, maps, batch):
    """The loss of a batch as the paper writes it, with quotients, and of two directions."""
    total, count = 0.0, len(loss.student_bank)
    noise = loss.negatives / count
    drawn = loss._drawn(batch.index, batch.labels)
    banks = loss.teacher_bank.clone(), loss.student_bank.clone()
    for side, (embedding, x, bank) in enumerate(zip(loss.embeddings, maps, banks, strict=True)):
        z = torch.exp(loss.log_odds[side]) * count / loss.negatives
        v = embedding(x)
        v = v / v.norm(dim=1, keepdim=True)
        for b, image in enumerate(batch.index.tolist()):
            p = torch.exp(v[b] @ bank[loss.rows[image]] / loss.temperature) / z
            total = total - torch.log(p / (p + noise))
            for row in drawn[b].tolist():
                p = torch.exp(v[b] @ bank[row] / loss.temperature) / z
                total = total - torch.log(noise / (p + noise))
    return total / len(batch.index)


@pytest.mark.parametrize("dense", [0, 10**6], ids=["by_image", "dense"])
@pytest.mark.parametrize("index", [(0, 4, 6), (2,), (9, 10)])
def test_it_is_the_papers_sum(index, dense, monkeypatch):
    monkeypatch.setattr(contrastive, "DENSE", dense)
    loss, _ = prepared()
    batch, (own, wanted) = batch_of(index), features(len(index))
    leaves = [own, wanted, *loss.embeddings.parameters()]
    expected = one_by_one(loss, (own, wanted), batch)
    truth = torch.autograd.grad(expected, leaves)
    found = loss([own], [wanted], batch)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for one, other in zip(torch.autograd.grad(found, leaves), truth, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_z_is_that_of_the_first_batch():
    loss, setup = prepared(dtype=torch.float32)
    drawn = loss._drawn(setup.batch.index, setup.batch.labels)
    for side, bank in enumerate((loss.teacher_bank, loss.student_bank)):
        v = loss.embeddings[side]((setup.student + setup.teacher)[side])
        v = v / v.norm(dim=1, keepdim=True)
        rows = torch.cat([loss.rows[setup.batch.index, None], drawn], 1)
        scores = torch.exp((bank[rows] @ v[..., None]) / loss.temperature)
        z = scores.double().mean().item() * len(POOL)
        assert loss.log_odds[side].item() == pytest.approx(math.log(loss.negatives * z / 10), 1e-5)


def test_negatives_are_of_other_classes_and_all_of_them():
    loss, _ = prepared(negatives=4000)
    batch = batch_of(POOL.tolist())
    drawn = loss._drawn(batch.index, batch.labels)
    order = POOL[LABELS[POOL].argsort(stable=True)]
    for label, rows in zip(batch.labels.tolist(), drawn, strict=True):
        others = (LABELS[order] != label).nonzero().flatten()
        counts = torch.bincount(rows, minlength=len(POOL))
        assert set(counts.nonzero().flatten().tolist()) == set(others.tolist())
        expected = loss.negatives / len(others)
        assert (counts[others] - expected).abs().max() < 6 * math.sqrt(expected)


def test_draws_depend_on_seed_epoch_and_image_alone():
    loss, _ = prepared()
    whole = batch_of(POOL.tolist())
    drawn = loss._drawn(whole.index, whole.labels)
    part = batch_of([10, 2])
    assert torch.equal(loss._drawn(part.index, part.labels), drawn[[8, 2]])
    loss.begin_epoch(1)
    assert not torch.equal(loss._drawn(whole.index, whole.labels), drawn)
    loss.begin_epoch(0)
    loss.seed += 1
    assert not torch.equal(loss._drawn(whole.index, whole.labels), drawn)
    assert len({tuple(row) for row in drawn.tolist()}) == len(drawn)


def test_rows_follow_in_training_alone():
    loss, _ = prepared()
    batch, (own, wanted) = batch_of([4, 9]), features(2)
    before = loss.student_bank.clone()
    value = loss.eval()([own], [wanted], batch)
    assert torch.equal(loss.student_bank, before)
    assert loss.train()([own], [wanted], batch) == value
    v = loss.embeddings[0](own)
    rows = loss.rows[batch.index]
    moved = 0.5 * before[rows] + 0.5 * v / v.norm(dim=1, keepdim=True)
    torch.testing.assert_close(loss.student_bank[rows], moved / moved.norm(dim=1, keepdim=True))
    others = [r for r in range(len(POOL)) if r not in rows.tolist()]
    assert torch.equal(loss.student_bank[others], before[others])


def test_confident_scores_stay_finite():
    loss, _ = prepared(dtype=torch.float32, temperature=1e-3)
    own, wanted = features(2, dtype=torch.float32)
    value = loss([own], [wanted], batch_of([4, 9]))
    assert value.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(value, [own, wanted]))


def test_gradcheck():
    loss, _ = prepared()
    loss.eval()
    own, wanted = features(3)
    batch = batch_of([0, 4, 6])
    assert torch.autograd.gradcheck(lambda s, t: loss([s], [t], batch), (own, wanted))


def test_refusals():
    loss, setup = prepared()
    mixed = batch_of([0, 4])
    mixed = Batch(mixed.images, mixed.labels, mixed.index, mixed.labels, torch.ones(2))
    with pytest.raises(InputError, match="CRD: is not defined for images mixed from two"):
        loss([features(2)[0]], [features(2)[1]], mixed)
    alone = Setup(None, None, *([x] for x in features(3)), setup.batch, LABELS * 0, POOL, 1, 0)
    with pytest.raises(InputError, match="all images have one class"):
        CRD().prepare(alone)
    maps = [torch.zeros(3, 4, 2, 2)]
    with pytest.raises(InputError, match="expected 2 dimensions; name taps that give features"):
        CRD().prepare(Setup(None, None, maps, maps, setup.batch, LABELS, POOL, 3, 0))
