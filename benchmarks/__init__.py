"""How fast the collector is, and beside what: ``python -m benchmarks``.

A benchmark is a module with ``run(report, scale)`` and a row of ``__main__.BENCHMARKS``. Whatever
is compared runs in turns within one run (A B A B …), so that the machine's moods meet both; nothing
here is a test, and no figure makes anything fail.
"""
