"""A collector at half its full speed for long, while keys come and go: ``make soak MINUTES=20``.

The collector is a process as it is installed, with snapshots every 10 s. Another process, the
loader, speaks for a hundred sources with 2,000 keys each: batches of 1,000 records, numbered and
acknowledged. It measures full speed for some seconds and then keeps to half of it. Every few
seconds the oldest source makes way: in turns it removes its keys, or it just falls silent and
expires. This process asks at a steady small rate and writes down what it sees, in windows of 10 s.

- ``loader.py``: sources, and the account of what they told
- ``watch.py``: questions, windows, what is checked in each minute
- ``results.py``: what is judged, and how it is written and drawn
"""
