"""netops: a simulated network whose failures are known, a client of the collector like any other.

``configuration.py`` says what there is to simulate; ``devices.py`` and ``virtual_networks.py`` draw
it, block by block (``block.py``); ``targets.py`` is where blocks go; ``run.py`` sends history, then
goes on live; ``service.py`` and ``command.py`` are how programs and people drive it; ``score.py``
measures what detectors make of it, ``demo.py`` shows it.
"""
