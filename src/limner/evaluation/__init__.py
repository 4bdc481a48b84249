"""Judging what was trained: the scorecard of runs, and of folders of pictures that came from anywhere."""
