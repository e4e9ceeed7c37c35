"""A log call never raises, even if its line is lost."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve_app.telemetry.logs import emit, get_logger
from tests.support.serve_log import serve_log
from tests.support.small_disk import small_disk


class FullDevice(logging.Handler):
    """Writes to a full device and raises the error."""

    def emit(self, record: logging.LogRecord) -> None:
        with Path("/dev/full").open("wb", buffering=0) as device:
            device.write(record.getMessage().encode())


def refuse_all(record: logging.LogRecord) -> bool:
    raise ValueError(record.msg)


@pytest.fixture
def handler() -> Iterator[FullDevice]:
    service, handler = logging.getLogger("serve_app"), FullDevice()
    service.addHandler(handler)
    yield handler
    service.removeHandler(handler)


@pytest.mark.usefixtures("handler")
def test_a_handler_that_raises_does_not_reach_the_caller() -> None:
    logger = get_logger("serve_app.test")
    with pytest.raises(OSError, match="No space left"):
        logging.getLogger("serve_app.test").error("by standard logging")

    for call in (logger.debug, logger.info, logger.warning, logger.error, logger.critical):
        call("event", extra={"number": 1})
    logger.log(logging.ERROR, "event")
    try:
        raise RuntimeError("a cause")
    except RuntimeError:
        logger.exception("event")
    emit({"event": "rerank_request", "status": 200})


def test_a_filter_that_raises_does_not_reach_the_caller(handler: FullDevice) -> None:
    handler.addFilter(refuse_all)

    get_logger("serve_app.test").error("event")
    emit({"event": "rerank_request", "status": 500})


def test_a_field_that_collides_with_an_attribute_does_not_reach_the_caller() -> None:
    get_logger("serve_app.test").error("event", extra={"message": "reserved by logging"})


def test_log_lines_name_their_caller_and_keep_their_fields(
    caplog: pytest.LogCaptureFixture,
) -> None:
    get_logger("serve_app.test").warning("event", extra={"number": 1})
    emit({"event": "rerank_request", "status": 503})

    first, second = caplog.records
    assert (first.message, first.levelname, first.funcName) == (
        "event",
        "WARNING",
        test_log_lines_name_their_caller_and_keep_their_fields.__name__,
    )
    assert first.__dict__["number"] == 1
    assert (second.message, second.levelname) == ("rerank_request", "ERROR")
    assert second.__dict__["status"] == 503


def test_a_full_disk_under_the_log_fails_no_call(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, serve_log(disk.folder / "logs"):
        disk.fill()
        get_logger("serve_app.test").error("lost")
        logging.getLogger("ray.serve").error("a line of Ray's own")
        disk.free()
        get_logger("serve_app.test").error("written")

        (file,) = (disk.folder / "logs").iterdir()
        assert '"written"' in file.read_text()
