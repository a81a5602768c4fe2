"""Parts of the C99 export: text of steps, layout of buffers, packed weights, files."""
