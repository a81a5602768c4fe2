"""One file per paper: `RECIPE` says its rows.  The file's name is the recipe's, with ``-`` for ``_``."""
