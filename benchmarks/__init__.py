"""Programs that make the numbers in docs/RESULTS.md."""
