"""What a job is, and what it reports while it runs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from comp.compute.devices import Device, is_out_of_memory
from comp.console import ProgressBars, info
from comp.errors import CompError, TimeIsUp
from comp.user_code import users_line

Report = Callable[..., None]
Job = Callable[..., None]  # job(*arguments, device, report, deadline)


def call(job: Job, args: tuple[Any, ...], place: Device, report: Report, deadline: float) -> None:
    """Run the job. Raise CompError for errors that users can fix: out of memory, and errors of files and of
    their own code."""
    try:
        job(*args, device=place, report=report, deadline=deadline)
    except Exception as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise CompError(
                "out of memory; set phases.N.accumulate, gradient_checkpointing = true, or a smaller "
                "batch_size"
            ) from error
        if line := users_line(error):
            raise CompError(line) from error
        if isinstance(error, OSError):
            raise CompError(f"{error.filename or 'system'}: {error.strerror or error}") from error
        raise


def show(bars: ProgressBars, name: str, event: dict[str, Any]) -> None:
    """Print a job's line, or move its bar. `saved` events only matter to other machines."""
    if "line" in event:
        info(f"{name}  {event['line']}")
    elif "done" in event:
        label = f"{name} {event.get('label', '')}".rstrip()
        bars.update(label, event["done"], event["total"], share=event.get("share"))


def raise_if_late(names: Iterable[str], late: Mapping[str, str]) -> None:
    """Raise TimeIsUp if jobs are late; `late` holds by name what each had done."""
    if late:
        raise TimeIsUp(", ".join(f"{name}: {late[name]}" for name in names if name in late))
