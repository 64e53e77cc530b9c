"""W&B mirrors what the stages write: the run of each stage, what is recorded there, and what a team sees of it."""
