"""Everything that a training is made of: its tasks and their data, the loop, checkpoints, several processes."""
