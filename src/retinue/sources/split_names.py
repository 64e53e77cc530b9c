"""The names that splits go by, in tables, folders and the names of shards."""

_SPLIT_OF_NAME = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_named(text: str) -> str | None:
    """The split that a name in any case stands for, "" for an empty one; None where it is no name of a split.

    >>> split_named("Training"), split_named("valid"), split_named(" "), split_named("tset")
    ('train', 'val', '', None)
    """
    plain = text.strip().casefold()
    return _SPLIT_OF_NAME.get(plain) if plain else ""
