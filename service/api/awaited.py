"""A client's wait for its job: events, the result, or the reason why there is none.

Whatever ends the request, `close` is called by the edge once nothing more is sent: what nobody
waits for is stopped, and the run of what was sent ends.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import Request

from service.errors import Cancelled, DeadlineExceeded
from service.generation.job import CancelCause, Ended, Event, Previewed
from service.generation.request import Generated, GenerationRequest
from service.runs import Run
from service.runtime import Runtime

__all__ = ["Awaited"]


class Awaited:
    """One admitted job and the client that waits for it. Belongs to the event loop."""

    def __init__(self, runtime: Runtime, request: Request, wanted: GenerationRequest) -> None:
        """Admit the job. Raises QueueFull, NotReady, PolicyUnknown."""
        self._engine = runtime.engine
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()  # None: look what has happened
        self._sending: Run | None = None  # of the preview that was passed on last
        self._job = self._engine.submit(wanted, self._tell)
        request.state.on_sent = self.close
        self._ended = False  # every event of the job is in the queue
        self._left = asyncio.ensure_future(_client_left(request))
        self._left.add_done_callback(lambda _task: self._events.put_nowait(None))

    @classmethod
    async def admitted(
        cls, runtime: Runtime, request: Request, wanted: GenerationRequest
    ) -> "Awaited":
        """The same once the prompts are checked. Raises RequestInvalid too."""
        # Off the event loop: a long prompt of rare characters takes a second to tokenise.
        check = runtime.prompts.check
        await asyncio.to_thread(check, wanted.prompt, param="prompt")
        await asyncio.to_thread(check, wanted.negative_prompt, param="negative_prompt")
        return cls(runtime, request, wanted)

    async def events(self) -> AsyncIterator[Event]:
        """What happens to the job until it is done. Whoever asks for the next has sent the last.

        Previews of a run that was superseded are left out, and one that is being sent holds the
        end of its run up: after a fence none of an older revision leaves.
        Raises Cancelled when the client leaves, DeadlineExceeded when its time is over.
        """
        while not (self._ended and self._events.empty()):
            event = await self._next_event()
            if isinstance(event, Previewed):
                if event.run.send():
                    self._sending = event.run
                    yield event
                    self._sent()
            elif event is not None and not isinstance(event, Ended):
                yield event
            elif self._left.done() and not self._ended:
                raise Cancelled("the client left")

    async def result(self) -> Generated:
        """The images. Raises what `events` raises, and what the job's future raises."""
        async for _event in self.events():
            pass
        return self._job.future.result()

    def close(self) -> None:
        """Nothing more is sent. May be called again."""
        cause: CancelCause = "client_left" if self._left.done() else "deadline"
        self._left.cancel()
        self._sent()
        self._engine.abandon(self._job, cause)
        self._job.release()

    def _sent(self) -> None:
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.sent()

    async def _next_event(self) -> Event | None:
        """What has happened already counts after the deadline too: a slow reader may be behind."""
        await asyncio.sleep(0)  # what the engine's threads have told stands in the queue after that
        if not self._events.empty():
            return self._events.get_nowait()
        left = self._job.deadline - time.monotonic()
        try:
            return await asyncio.wait_for(self._events.get(), timeout=max(left, 0))
        except TimeoutError:
            raise DeadlineExceeded("the request's deadline has passed") from None

    def _tell(self, event: Event) -> None:
        """Called on the engine's threads, also when nobody waits any more; in order."""
        with suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._hear, event)

    def _hear(self, event: Event) -> None:
        self._ended = self._ended or isinstance(event, Ended)
        self._events.put_nowait(event)


async def _client_left(request: Request) -> None:
    """Return when the client closes its connection; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
