"""``python -m spikequant``."""

from spikequant.cli import main

main()
