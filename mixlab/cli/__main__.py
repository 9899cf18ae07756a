"""``python -m mixlab.cli``."""

from mixlab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
