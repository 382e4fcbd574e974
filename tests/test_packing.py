import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daqakd import _packing
from daqakd._errors import InputError
from daqakd._packing import pack_codes, packed_size, unpack_codes

WAYS = ("host", "numpy")


@pytest.fixture(params=WAYS)
def _each_way(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(_packing, "_host", None)
    elif _packing._host is None:
        pytest.skip("daqakd was installed without _host")


def by_hand(codes, bits):
    """Write the bit stream as one big number."""
    number = sum(int(code) << (i * bits) for i, code in enumerate(np.ravel(codes)))
    return list(number.to_bytes(packed_size(np.size(codes), bits), "little"))


@pytest.mark.usefixtures("_each_way")
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(0,), (), (1,), (7,), (8,), (9,), (3, 5), (2, 0, 3), (4, 3, 3)])
def test_packs_as_one_little_endian_number(bits, shape):
    codes = np.random.default_rng(bits).integers(0, 2**bits, shape)
    packed = pack_codes(codes, bits)
    assert packed.dtype == np.uint8
    assert packed.tolist() == by_hand(codes, bits)
    assert np.array_equal(unpack_codes(packed, bits, shape), codes)


@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=40))
def test_both_ways_agree(bits, values):
    codes = np.array([value % 2**bits for value in values], dtype=np.uint8)
    packed = pack_codes(codes, bits)
    assert packed.tolist() == by_hand(codes, bits)
    assert unpack_codes(packed, bits, codes.shape).tolist() == codes.tolist()


@pytest.mark.usefixtures("_each_way")
def test_reads_any_memory_order_and_leaves_it_alone():
    codes = np.arange(12, dtype=np.int32).reshape(3, 4)
    kept = codes.copy()
    assert np.array_equal(pack_codes(codes.T, 4), pack_codes(codes.T.copy(), 4))
    assert np.array_equal(pack_codes(codes[:, ::2], 4), pack_codes(codes[:, ::2].copy(), 4))
    assert np.array_equal(codes, kept)


@pytest.mark.usefixtures("_each_way")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pack_codes(np.zeros(3, np.uint8), 9), "bits: expected 1 to 8, got 9"),
        (lambda: pack_codes(np.array([0, 4]), 2), r"codes: expected values in \[0, 3\]"),
        (lambda: pack_codes(np.array([-1]), 2), "subtract the lowest code"),
        (lambda: pack_codes(np.array([256]), 8), r"codes: expected values in \[0, 255\]"),
        (lambda: pack_codes(np.zeros(3), 2), "codes: expected integers, got float64"),
        (lambda: unpack_codes(np.zeros(1, np.uint8), 3, (3,)), "packed: expected 2 bytes"),
        (lambda: unpack_codes(np.zeros(2, np.int8), 3, (3,)), "got 2 of int8"),
    ],
)
def test_errors_say_what_was_wanted(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_host_module_checks_for_itself():
    host = pytest.importorskip("daqakd._host")
    with pytest.raises(ValueError, match="codes: expected values below 2"):
        host.pack(np.array([4], np.uint8), 2)
    with pytest.raises(ValueError, match="packed: expected 2 bytes for 3 codes, got 1"):
        host.unpack(np.zeros(1, np.uint8), 3, 3)
