"""What people have corrected in the labels, as a table."""

from retinue.pipeline.numbers import figure
from retinue.reports.inputs import ReportInputs
from retinue.reports.tables import Column, Table

_MOST = 200  # rows


def corrections_table(inputs: ReportInputs) -> Table | None:
    """The corrections that were applied to the labels of the source; None where there are none."""
    changes = inputs.card["corrections"]
    rows = [
        [change["image_id"], change["was"], change["now"] or "left out", change["reason"]] for change in changes[:_MOST]
    ]
    columns = [Column("image"), Column("class of the source"), Column("corrected to"), Column("reason", kind="prose")]
    caption = f"{figure(len(changes))} corrected {'label' if len(changes) == 1 else 'labels'}"
    return Table(caption, columns, rows, max(0, len(changes) - _MOST), sortable=len(rows) > 1) if changes else None
