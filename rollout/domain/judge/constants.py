"""Every number that users do not set, in one place. Where they come from: docs/judge.md."""

from math import log

ALPHA = 0.01  # a healthy release is failed at most so often
BETA = 0.05  # a regression of just the margin passes at most so often
FAIL_AT = -log(ALPHA)  # nats of evidence
PASS_AT = -log(BETA)
TRIM_AT = log(10.0)  # what must be left without the worst seconds
LEAN = log(3.0)  # who leans towards FAIL so much does not pass

RATIO = 1.25  # canary to baseline: material is above RATIO x baseline + margin
STRICT_MARGIN = 0.001  # the margin at t = 0; it relaxes to the user's until the deadline

TRIM_S = 4.0  # one burst of so long fails nobody
UNSEEN_S = 15.0  # a canary that was not seen for so long does not pass
CLEAR_S = 30.0  # after a shared incident
INCIDENT_S = 10.0  # how far back an incident is looked for
INCIDENT_SIGMAS = 6.0
INCIDENT_LEAST = 5  # bad answers of the baseline that make one by the absolute limit

STARVED_S = 30.0
STARVED_SHARE = 0.1
STARVED_LEAST = 30.0  # requests that were to be expected

BLACKOUT_LEAST = 5  # requests in a bin
BLACKOUT_SHARE = 0.5
BLACKOUT_BASELINE = 0.25  # with so many bad answers on the baseline too it is nobody's blackout
BLACKOUT_CERTAIN_S = 10.0  # so long a one is an outage, however noisy the hosts are

CAP_FLOOR, CAP_SIGMAS = 3.0, 4.0  # of a burst on one host in one bin

TAU = 0.20  # standard deviation of hosts' log error rates around their common one
SPREAD_LEAST = 0.05  # what history cannot tell about it
SPREAD_OWN = 0.30  # of one host's log error rate over time, when there is nobody to compare with

RELATIVE_WEIGHT, ABSOLUTE_WEIGHT = 0.75, 0.25

PHI_PRIOR, PHI_PRIOR_DF, PHI_MOST = 1.1, 20.0, 100.0
BLOCK_S = 10.0
BLOCKS = (1, 3, 6)  # block lengths in units of BLOCK_S
AUTOCORRELATED = 1.5  # phi of the worst block length to that of the shortest: above it, noise has a memory

LEAST_LIMIT = 1e-6  # a minimum of 100 % is taken for 99.9999 %: nothing ever proves all
