"""The ceiling: receive batches as ingest does, and throw them away (``python -m benchmarks.sink``).

Two plain ``recv`` calls a message. A numbered batch is answered with always the same bytes, so that
a sender can hold on to its window; nothing is looked at but one byte that tells those batches.
"""

from __future__ import annotations

import sys

import zmq

from collectord import wire

NUMBERED = wire.encode_batch_head("", 0, epoch=1, seq=1)[0]
"""The first byte of a batch with ``seq``, ``epoch``, ``source`` and ``records``."""
ANSWER = wire.encode({"seq": 1, "applied": 0, "durable": 0})


def main() -> None:
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.bind("tcp://127.0.0.1:*")
    print(socket.getsockopt_string(zmq.LAST_ENDPOINT), file=sys.stderr, flush=True)
    receive = socket.recv
    while True:
        identity = receive()
        if receive()[0] == NUMBERED:
            socket.send(identity, zmq.SNDMORE)
            socket.send(ANSWER)


if __name__ == "__main__":
    main()
