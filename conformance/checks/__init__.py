"""All checks, in the order in which they run."""

from conformance.checks import browsers, errors, metering, retries, scores, wire

# Retries last, because they also look at the answers to all other checks.
CHECKS = (
    *wire.CHECKS,
    *errors.CHECKS,
    *scores.CHECKS,
    *metering.CHECKS,
    *browsers.CHECKS,
    *retries.CHECKS,
)

GROUPS = tuple(dict.fromkeys(check.group for check in CHECKS))
