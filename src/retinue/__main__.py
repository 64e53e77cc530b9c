"""`python -m retinue` is the command `retinue`."""

from retinue.pipeline.interruption import end_at_once

end_at_once("retinue")  # before the other imports, which take a second

from retinue.cli import main

main(prog_name="retinue")
