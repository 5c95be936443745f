"""Which parameter decays, how much, and why: ordered groups, every trainable parameter exactly once.

Names offered here: `Group`, `preset`, `param_groups` and `split` (also as `weightdecay.Group` and so on),
and for those who build on them `assign`, its records `Assignment`, `table`, `ROLES` and `PRESETS`.
"""

from weightdecay.groups.assigning import Assignment, assign, table
from weightdecay.groups.building import param_groups, split
from weightdecay.groups.presets import PRESETS, preset
from weightdecay.groups.roles import ROLES
from weightdecay.groups.selectors import Group

__all__ = ["PRESETS", "ROLES", "Assignment", "Group", "assign", "param_groups", "preset", "split", "table"]
