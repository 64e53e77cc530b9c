"""The networks: one file per family, one conf/model/<name>.yaml per member."""
