"""The sections of the tour, one module for each: from measured values to pictures and plain words.

Nothing is measured here, and no conclusion is written down beforehand: every sentence is chosen by the numbers.
"""
