"""`python -m cluenet`, the same as `cluenet`."""

from cluenet.cli import main

if __name__ == "__main__":
    main()
