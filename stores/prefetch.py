"""Items made ahead in a thread."""

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


def prefetched(items: Iterable[T], depth: int = 1, stop: threading.Event | None = None) -> Generator[T, None, None]:
    """The same items, made ahead in a thread; its exception is raised here. The thread ends with the iteration. stop: is
    set then, for items that take long to come."""
    ready: queue.Queue = queue.Queue(depth)
    stop, end = stop or threading.Event(), object()

    def put(item: object) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def fill() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                put((item, None))
                if stop.is_set():
                    return
            put((end, None))
        except BaseException as error:
            put((end, error))
        finally:
            if close := getattr(iterator, "close", None):
                close()

    thread = threading.Thread(target=fill, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is end:
                return
            yield item
    finally:
        stop.set()
        thread.join()
