"""Rotary position embedding that TTNN would get wrong."""

import types

import pytest

from tt_dynamo.ir import operators
from tt_dynamo.ir.errors import Unsupported
from tt_dynamo.lowering import find


def test_a_head_that_does_not_fill_its_tiles_is_refused_where_ttnn_would_pair_it_wrongly():
    head = types.SimpleNamespace(shape=(1, 3, 7, 16))
    with pytest.raises(Unsupported, match="does not fill its tiles"):
        find(operators.rotary).function(None, head, head, head)
