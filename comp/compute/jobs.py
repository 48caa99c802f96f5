"""What a job is and what it reports while it runs."""

from collections.abc import Callable
from typing import Any

from comp.compute.devices import Device, is_out_of_memory
from comp.console import Bars, say
from comp.errors import CompError

Report = Callable[..., None]
Job = Callable[..., None]  # job(*arguments, device, report, deadline)


def call(job: Job, args: tuple[Any, ...], place: Device, report: Report, deadline: float) -> None:
    """Run the job; what users can mend becomes a CompError."""
    try:
        job(*args, device=place, report=report, deadline=deadline)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise CompError(
            "memory is full; set phases.N.accumulate, gradient_checkpointing = true, or a smaller batch_size"
        ) from error
    except OSError as error:
        raise CompError(f"{error.filename or 'system'}: {error.strerror or error}") from error


def show(bars: Bars, name: str, event: dict[str, Any]) -> None:
    """Print a job's line, or move its bar. That files were saved only matters to other machines."""
    if "line" in event:
        say(f"{name}  {event['line']}")
    elif "done" in event:
        bars.at(f"{name} {event.get('label', '')}".rstrip(), event["done"], event["total"])
