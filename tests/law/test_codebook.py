"""Codebooks: fields there and back, what a network refuses, and the file that carries one."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.law.artifact import parse_bytes, to_bytes
from spikequant.law.codebook import code_fields, level_table
from spikequant.law.errors import ArtifactError, Unsupported
from spikequant.law.footprint import network_memory
from spikequant.law.formats import IntFormat
from spikequant.law.network import Decoder, Edge, InputNode, IntNet, NeuronNode, SynapseNode
from spikequant.law.presets import integrate_and_fire
from spikequant.law.products import Product
from spikequant.law.spec import StateFormat

BOOK = np.array([[1, 3], [2, 50]])
CODES = np.array([[4, -2, 2], [-52, 48, 52]])


def network(codebook=BOOK, codes=CODES, bits=2):
    spec = integrate_and_fire().replace(v=StateFormat(format=IntFormat(bits=12)))
    one = np.array(1)
    nodes = (
        InputNode(name="input", shape=(3,), format=IntFormat(bits=1, signed=False), static=False),
        SynapseNode(name="fc", shape=(2,), inputs=(Edge("input"),), product=Product(kind="linear", codes=codes),
                    format=IntFormat(bits=8, narrow=True), bits=bits, codebook=codebook),
        NeuronNode(name="lif", shape=(2,), inputs=(Edge("fc"),), gains=(one,), spec=spec,
                   params={"theta": np.array(40), "reset": np.array(40), "v_load": one, "v_shift": np.array(0)}),
    )  # fmt: skip
    return IntNet(nodes=nodes, decoder=Decoder(name="spike_count", source="lif"), steps=4)


@given(st.integers(1, 6), st.integers(0, 999))
def test_fields_come_back(bits, seed):
    generator = np.random.default_rng(seed)
    book = generator.integers(0, 60, (4, bits))
    fields = generator.integers(0, 2**bits, (4, 5, 2))
    table = level_table(book)
    codes = np.take_along_axis(table, fields.reshape(4, -1), 1).reshape(fields.shape)
    found = code_fields(codes, book)
    assert found is not None  # other fields where two sums are equal, but the same codes
    assert np.array_equal(np.take_along_axis(table, found.reshape(4, -1), 1).reshape(fields.shape), codes)


def test_a_file_carries_it_and_memory_counts_it():
    net = parse_bytes(to_bytes(network()))
    assert np.array_equal(net.synapses[0].codebook, BOOK)
    rows = {row.role: (row.count, row.bits) for row in network_memory(net) if row.layer == "fc"}
    assert rows == {"weight": (6, 2), "codebook": (4, 7)}


def test_a_file_without_one_does_not_name_it():
    assert b"codebook" not in to_bytes(network(None))
    assert parse_bytes(to_bytes(network(None))).synapses[0].codebook is None


@pytest.mark.parametrize(
    ("codebook", "bits", "what"),
    [(BOOK[:, :1], 2, "shape"), (np.array([1, 3]), 2, "shape"), (BOOK, 3, "shape"), (BOOK + 1, 2, "beside"),
     (np.zeros((2, 9), np.int64), 9, "at most 8"), (np.full((2, 2), 2**40), 2, "beside")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(codebook, bits, what):
    with pytest.raises(Unsupported, match=what):
        network(codebook, bits=bits)


def test_one_row_serves_all_channels():
    codes = np.array([[4, -2, 2], [-4, 2, 2]])
    assert network(BOOK[:1], codes).synapses[0].codebook.shape == (1, 2)


def test_a_codebook_of_reals_in_a_file_is_refused():
    synapse = dataclasses.replace(network().synapses[0], codebook=BOOK.astype(np.float64))
    net = network(None)
    object.__setattr__(net, "nodes", tuple(synapse if n.name == "fc" else n for n in net.nodes))
    with pytest.raises(ArtifactError, match="codebook"):
        parse_bytes(to_bytes(net))
