"""Operations that TTNN has whole and ATen has not: custom operators with a torch implementation.

Passes put them into ATen graphs, so a graph still runs in eager torch after every pass. Each is composite: torch
traces through it, which gives shapes to fake tensors and a way back to ATen where TTNN refuses the whole.
"""

from tt_dynamo.ir.operators.arithmetic import *
from tt_dynamo.ir.operators.attention import *
from tt_dynamo.ir.operators.cache import *
from tt_dynamo.ir.operators.collectives import *
from tt_dynamo.ir.operators.definition import *
from tt_dynamo.ir.operators.delta_rule import *
from tt_dynamo.ir.operators.experts import *
from tt_dynamo.ir.operators.host import *
from tt_dynamo.ir.operators.image import *
from tt_dynamo.ir.operators.index import *
from tt_dynamo.ir.operators.linear import *
from tt_dynamo.ir.operators.modulation import *
from tt_dynamo.ir.operators.recurrence import *
from tt_dynamo.ir.operators.snake import *
from tt_dynamo.ir.operators.volume import *
