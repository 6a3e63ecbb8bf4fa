"""`python -m tt_dynamo.estimate --check [--plot FILE]`: the error of the estimate, by family."""

import argparse

from tt_dynamo.estimate.check import plot, text


def main() -> None:
    """Print the error, and write the plot where it is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tt_dynamo.estimate", description="The estimate of device time.")
    parser.add_argument("--check", action="store_true", help="print its error against published measurements")
    parser.add_argument("--plot", metavar="FILE", help="write estimated against measured, by family (.png, .svg)")
    given = parser.parse_args()
    if not given.check and not given.plot:
        parser.error("nothing asked for: give --check, --plot FILE or both")
    if given.check:
        print(text())
    if given.plot:
        plot(given.plot)


if __name__ == "__main__":
    main()
