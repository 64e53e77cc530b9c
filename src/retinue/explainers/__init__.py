"""Methods that show what a network looked at: one file and one conf/explain/<name>.yaml each."""
