"""Scan a model of your own with the library: `python examples/scan_a_model.py MODEL TRUSTED [ARCH]`."""

import sys

from ostiary import load, scan_model


def main() -> None:
    """Print the verdict and every finding."""
    path, trusted, *arch = sys.argv[1:]
    record = scan_model(load(path, *arch), trusted)
    print(record.verdict)
    for result in record.results:
        for finding in result.findings:
            print(finding.code, finding.level, finding.message)


if __name__ == "__main__":
    main()
