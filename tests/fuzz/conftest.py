"""The judge and the harness are those of PyTorch's operator database."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "opinfo"))
