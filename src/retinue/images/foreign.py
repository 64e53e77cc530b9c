"""Files that people take for images and that are not read here: what they are, and what to do."""

_NOT_READ = "is not read here; convert it to JPEG or PNG"
_KNOWN_STARTS = {  # files that people take for images: first bytes, and what to do
    b"\xff\x0a": f"a JPEG XL file, which {_NOT_READ}",
    b"\0\0\0\x0cJXL ": f"a JPEG XL file, which {_NOT_READ}",
    b"%PDF-": f"a PDF, which {_NOT_READ}",
    b"8BPS": f"a Photoshop file (PSD), which {_NOT_READ}",
    b"<svg": f"an SVG drawing, which {_NOT_READ}",
}
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}
_LONGEST_BOX = 256
_HEIC = (
    f"a HEIC file, which {_NOT_READ}: export it as JPEG, or set the telephone to take JPEG (iPhone: Settings, Camera, "
    "Formats, Most Compatible)"
)


def what_it_is(data: bytes) -> str:
    """The reason why a file is quarantined that is of a known format which is not read here; "" for another file."""
    if data[4:8] == b"ftyp":
        box = data[8 : min(int.from_bytes(data[:4], "big"), _LONGEST_BOX)]
        brands = {box[at : at + 4] for at in range(0, len(box), 4)}
        return _HEIC if brands & _HEIC_BRANDS else ""
    return next((reason for start, reason in _KNOWN_STARTS.items() if data.startswith(start)), "")
