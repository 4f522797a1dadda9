"""`python -m ostiary`."""

from ostiary.cli.main import main

if __name__ == "__main__":
    main()
