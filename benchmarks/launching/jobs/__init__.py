"""The jobs as ours, in three modules that differ in what they import."""
