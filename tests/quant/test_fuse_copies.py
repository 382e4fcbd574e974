"""Fused students copied, pickled, and for a while only."""

import copy
import io
import pickle

import pytest
import torch

from daqakd.quant.fusion import fusing

from ..helpers.fusible import CHAINS, assert_alike, chains_run, images, pair
from ..helpers.small import SlimResNet


def test_deep_copies_are_fused_and_apart():
    fused, plain = pair()
    twin = copy.deepcopy(fused)
    assert type(twin) is type(fused)
    assert chains_run(twin) == CHAINS
    before = copy.deepcopy(fused.state_dict())
    torch.optim.SGD(twin.parameters(), lr=0.1).zero_grad()
    twin(images()).sum().backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.sub_(0.1)
    for name, value in fused.state_dict().items():
        assert torch.equal(value, before[name])
    assert_alike(copy.deepcopy(fused), copy.deepcopy(plain))


def test_pickles_and_whole_files_are_fused():
    fused, plain = pair("pact")
    file = io.BytesIO()
    torch.save(fused, file)
    file.seek(0)
    for twin in (pickle.loads(pickle.dumps(fused)), torch.load(file, weights_only=False)):
        assert isinstance(twin, SlimResNet)
        assert chains_run(twin) == CHAINS
        assert pickle.loads(pickle.dumps(twin)) is not twin
        twin.load_state_dict(plain.state_dict())
        assert_alike(twin, copy.deepcopy(plain))
    fusing.unfuse(fused)
    assert type(fused) is SlimResNet
    assert type(pickle.loads(pickle.dumps(fused))) is SlimResNet


def test_other_copies_are_the_students():
    """A class that copies and pickles in its own way does so still."""

    fused, plain = pair(model=OwnCopies())
    assert copy.deepcopy(fused).copied
    assert isinstance(pickle.loads(pickle.dumps(fused)), OwnCopies)
    assert_alike(fused, plain)


class OwnCopies(SlimResNet):
    copied = False

    def __deepcopy__(self, memo):
        twin = type(self)()
        twin.__dict__ |= copy.deepcopy(self.__dict__, memo)
        twin.copied = True
        return twin

    def __reduce_ex__(self, protocol):
        return OwnCopies, ()


def test_in_place_within_a_block():
    fused, plain = pair()
    kind = type(plain)
    with fusing.fused(plain):
        assert chains_run(plain) == CHAINS
    assert type(plain) is kind
    with pytest.raises(ZeroDivisionError), fusing.fused(plain):
        raise ZeroDivisionError
    assert type(plain) is kind
    with fusing.fused(fused, wanted=False):
        assert chains_run(fused) == 0
    assert chains_run(fused) == CHAINS
