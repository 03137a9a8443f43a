"""``python -m immunobench`` is the command ``immunobench``."""

from immunobench.cli import main

if __name__ == "__main__":
    main()
