"""What a job is, and what it reports while it runs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comp.compute.devices import Device, is_out_of_memory
from comp.console import ProgressBars, info
from comp.errors import CompError, TimeIsUp

Report = Callable[..., None]
Job = Callable[..., None]  # job(*arguments, device, report, deadline)


def call(job: Job, args: tuple[Any, ...], place: Device, report: Report, deadline: float) -> None:
    """Run the job. Raise CompError for errors that users can fix: out of memory, and errors of files."""
    try:
        job(*args, device=place, report=report, deadline=deadline)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise CompError(
            "out of memory; set phases.N.accumulate, gradient_checkpointing = true, or a smaller batch_size"
        ) from error
    except OSError as error:
        raise CompError(f"{error.filename or 'system'}: {error.strerror or error}") from error


def show(bars: ProgressBars, name: str, event: dict[str, Any]) -> None:
    """Print a job's line, or move its bar. `saved` events only matter to other machines."""
    if "line" in event:
        info(f"{name}  {event['line']}")
    elif "done" in event:
        bars.update(f"{name} {event.get('label', '')}".rstrip(), event["done"], event["total"])


def raise_if_late(names: Iterable[str], late: Mapping[str, str]) -> None:
    """Raise TimeIsUp if jobs are late; `late` holds by name what each had done."""
    if late:
        raise TimeIsUp(", ".join(f"{name}: {late[name]}" for name in names if name in late))
