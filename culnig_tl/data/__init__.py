"""What is found, as typed objects: sets of neurons, scores, results, pools to rank in, and their statistics.
They draw nothing."""
