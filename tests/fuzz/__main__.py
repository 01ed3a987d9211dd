"""Fuzz one target for a while with atheris, which knows what code its inputs have reached."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile

import atheris


def main() -> None:
    """Ends with 0 when the time is over, and otherwise says which input is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="0 takes another one each time")
    options = parser.parse_args()
    with atheris.instrument_imports(include=["pyshimio"]):
        from fuzz.targets import SEEDS, TARGETS  # noqa: PLC0415 - so that it is instrumented
    corpus = tempfile.mkdtemp()
    for number, seed in enumerate(SEEDS[options.target]()):
        with open(os.path.join(corpus, str(number)), "wb") as file:
            file.write(seed)
    arguments = [
        *(sys.argv[0], corpus, f"-max_total_time={options.seconds}", f"-seed={options.seed}"),
        *("-timeout=20", "-rss_limit_mb=1000", "-max_len=8192", f"-artifact_prefix={corpus}/"),
        "-print_final_stats=1",
    ]
    atheris.Setup(arguments, TARGETS[options.target]())
    atheris.Fuzz()


if __name__ == "__main__":
    main()
