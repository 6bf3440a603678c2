"""Kill a collector again and again, and hold what is left against an account kept elsewhere.

``python -m tests.crash --rounds 100 --seed 1``. Nothing here is made of the collector's own code:
publishers, account and views are written from ``docs/protocol.md`` alone, with pyzmq and msgpack.

Several publishers send random batches, numbered, and keep each until it is durable. The collector
is a child process that saves its state every second; it is killed with SIGKILL while it serves,
starts or writes, and started anew. Now and then the publishers wait until all is durable, and every
view and every closed period is compared with the account.

Samples are of a time long ago, so that the ring closes periods and nothing waits for minutes. All
samples that are not durable yet lie within one ring of 8 periods: a source that sends again from
the start of what it kept would else meet series that others, which are back already, have driven
on, and the protocol lets its samples be late. See ``timeline.py``.
"""
