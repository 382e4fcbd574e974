"""What is shown: the microbenchmarks as a table."""
