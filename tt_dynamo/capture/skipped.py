"""What Dynamo leaves to eager torch before any backend hears of it."""

import functools
import logging

from torch._dynamo.utils import counters

log = logging.getLogger(__name__)


def warn_of_skipped_rnns() -> None:
    """Say once that Dynamo skipped nn.LSTM, nn.GRU or nn.RNN in this process: no report has them."""
    if any("config.allow_rnn" in reason for reason in counters["graph_break"]):
        _warn_once(
            "nn.LSTM, nn.GRU and nn.RNN run in eager torch, because Dynamo skips them and divides the graph there; "
            "set torch._dynamo.config.allow_rnn = True before compiling to run them on the device"
        )


_warn_once = functools.cache(log.warning)
