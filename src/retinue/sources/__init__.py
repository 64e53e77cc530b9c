"""Where images come from: one file and one conf/source/<name>.yaml each."""
