from testkit.prometheus import faster

RULE = """
- record: a:b:ratio1h
  expr: rate(c[1h]) > 14.4 * 0.001 and d[5m]
- alert: E
  expr: max(e_seconds) > 600
  for: 15m
"""
FASTER = """
- record: a:b:ratio1h
  expr: rate(c[60000ms]) > 14.4 * 0.001 and d[5000ms]
- alert: E
  expr: max(e_seconds) > 10
  for: 15000ms
"""


def test_faster_rules_have_shorter_durations_and_the_same_names() -> None:
    assert faster(RULE, 60) == FASTER
