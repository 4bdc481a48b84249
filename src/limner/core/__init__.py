"""The only machinery: specs, streams, updates, the loop, checkpoints, run folders. It imports no model."""
