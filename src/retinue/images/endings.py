"""Endings of file names: which promise a format, and which say that a file is no image."""

from collections.abc import Iterable

FORMAT_OF_ENDING = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "jif", "pjpeg", "pjp", "mpo"), "JPEG"),
    **dict.fromkeys(("png", "apng"), "PNG"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("avif", "avifs"), "AVIF"),
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "PPM"),
    **dict.fromkeys(("jp2", "j2k", "jpx", "jpf", "j2c"), "JPEG2000"),
    "webp": "WEBP",
    "gif": "GIF",
}
"""Ending in small letters, without the dot -> Pillow's name of the format."""

_NO_IMAGE = {
    *("txt", "md", "rst", "rtf", "pdf", "doc", "docx", "odt", "htm", "html", "mht", "tex", "bib", "log", "nfo"),
    *("csv", "tsv", "xls", "xlsx", "ods", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "toml", "ini", "cfg"),
    *("mat", "npy", "npz", "pkl", "pickle", "h5", "hdf5", "parquet", "feather", "arrow", "tfrecord", "record"),
    *("pt", "pth", "onnx", "safetensors", "names", "data", "cache", "db", "sqlite", "lmdb", "mdb"),
    *("py", "ipynb", "m", "r", "js", "css", "sh", "bat", "c", "cpp", "h", "java"),
    *("zip", "tar", "gz", "tgz", "bz2", "xz", "7z", "rar", "md5", "sha1", "sha256", "sig", "asc"),
    *("mp4", "avi", "mov", "mkv", "webm", "mpg", "mpeg", "wmv", "m4v", "mp3", "wav", "flac", "ogg"),
    *("xmp", "aae", "thm", "lnk", "url", "webloc", "lock", "tmp", "part", "crdownload", "bak"),
}
_PAPERS = {"readme", "license", "licence", "copying", "changelog", "citation", "authors", "notice", "makefile"}


def ending_of(name: str) -> str:
    """What stands behind the last dot of a file's name, in small letters; "" where nothing does.

    >>> ending_of("cats/photo.1.JPG"), ending_of("v1.2/README"), ending_of(".gitignore")
    ('jpg', '', '')
    """
    stem, dot, ending = name.rpartition("/")[2].rpartition(".")
    return ending.lower() if dot and stem else ""


def without_ending(name: str) -> str:
    """The path `name` up to the dot of its ending.

    >>> without_ending("cats/photo.1.JPG"), without_ending("v1.2/README")
    ('cats/photo.1', 'v1.2/README')
    """
    ending = ending_of(name)
    return name[: -len(ending) - 1] if ending else name


def is_stray(name: str) -> bool:
    """Whether a file is known by its name to be no image, as a table or a text; an unknown ending may be one.

    >>> is_stray("cats/boxes.xml"), is_stray("LICENSE"), is_stray("cats/1.jpg_large"), is_stray("cats/1.heic")
    (True, True, False, False)
    """
    ending = ending_of(name)
    return ending in _NO_IMAGE if ending else name.rpartition("/")[2].lower() in _PAPERS


def listed_endings(names: Iterable[str]) -> str:
    """The endings of `names` and how many have them, the most frequent first.

    >>> listed_endings(["a.txt", "b.TXT", "c.mat", "README"])
    '.txt: 2, .mat: 1, without: 1'
    """
    counts: dict[str, int] = {}
    for name in names:
        ending = ending_of(name)
        key = f".{ending}" if ending else "without"
        counts[key] = counts.get(key, 0) + 1
    return ", ".join(f"{key}: {count}" for key, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))
