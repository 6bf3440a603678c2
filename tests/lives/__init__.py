"""Lives of a collector without sockets, threads, files or sleep: engines, sources and two clocks.

A ``World`` has one engine at a time, a few sources that keep what isn't durable, a disk with
snapshots and a machine whose clock may be set. Out of a seed it makes lives: messages are lost,
come twice or in another order, answers are lost, sources fall silent, expire, come back and begin
anew; a snapshot is written partition by partition between batches, or never ended; the engine is
thrown away, time passes, and another one, perhaps with another number of partitions, is brought
back from the disk.

The account is kept in plain Python, as sources tell; the engine is not asked. What must hold:

- a source is never told less durable than before, nor to send again what it could forget;
- every closed period of every key has the sum, the count and the detector's mean of all that was
  told of it, by all sources, in whatever life it closes; nothing is late, nothing is deleted early;
- who was heard within the timeout does not expire, and who was not, does;
- in the end, each source's records are the ones it told last, and each period was closed.

There are two kinds of worlds. In one, samples are of a time long ago, and the ring closes periods:
there, whatever happens, everything holds, as long as what isn't durable lies within one ring (see
docs/protocol.md, **Time**). In the other, samples are of now, and the clock closes periods: there
the source is asked to be a good one, too, and to come back within the time that is granted.

``python -m tests.lives SEED`` lives one world again and tells what happens in it.
"""
