"""Pages that explain a result: one file each, which works offline and asks nothing of anyone."""
