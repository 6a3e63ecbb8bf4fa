"""Operations that read memory as it lies see what eager torch lays out, whatever passes do to copies before them."""

import pytest
import torch
from captured import capture, random

from tt_dynamo.ir.graph import aten
from tt_dynamo.passes.normalize.canonicalize import canonicalize
from tt_dynamo.passes.normalize.moves import keep_strides

READERS = {
    "a contiguous copy": lambda x: x.t().contiguous().as_strided((2, 3), (3, 1)),
    "a value that lies transposed": lambda x: torch.relu(x.t()).as_strided((2, 3), (3, 1)),
    "a view of a value": lambda x: torch.relu(x).t()[1:].as_strided((2, 3), (3, 1)),
    "a view of a value, from an offset in its memory": lambda x: torch.relu(x)[1:].as_strided((2, 3), (3, 1), 2),
    "complex numbers": lambda x: torch.view_as_real(torch.view_as_complex(x.t().contiguous())),
    "another dtype": lambda x: x.t().contiguous().view(torch.int16),
}


@pytest.mark.parametrize("what", READERS)
def test_the_operand_is_laid_out_and_stays_so(what):
    graph = capture(READERS[what], random(2, 4))
    assert graph.apply(keep_strides, exact=True) == 1
    graph.apply(canonicalize, exact=True)
    assert len(graph.calls(aten.copy.default)) == 1


def test_inputs_are_read_as_they_lie():
    graph = capture(lambda x: x.as_strided((2, 3), (3, 1)) + x[1:].as_strided((2, 3), (1, 2), 0), random(4, 4))
    assert graph.apply(keep_strides, exact=True) == 1  # the view of the input, which becomes the input
    assert not graph.calls(aten.copy.default)


def test_everything_else_is_left_alone():
    graph = capture(lambda x: (torch.relu(x.t()).contiguous().view(-1), x.t().reshape(-1)), random(2, 4))
    assert graph.apply(keep_strides, exact=True) == 0
