"""The kinds of answers that are watched one by one: a rise of one is not hidden by the noise of the others.

Their e-values are averaged, and the mean of e-values is an e-value (Vovk and Wang, "E-values: calibration, combination and
applications", 2021): no correction for looking at four. A fault in 5xx costs ln(1/0.6) = 0.5 nats by it.
"""

from rollout.domain.judge.steps import Kinds

KINDS = Kinds((("5xx", 0.6), ("4xx", 0.2), ("3xx", 0.1), ("499", 0.1)))
