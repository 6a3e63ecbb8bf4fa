"""What every operation becomes: tables by family, of which lowering/coverage.md is the summary."""

from . import core_elementwise, core_others

CORE = [*core_elementwise.CORE, *core_others.CORE]
