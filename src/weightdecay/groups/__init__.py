"""Which parameter decays, how much, and why: ordered groups, every trainable parameter exactly once.

Names offered here: `Group`, `param_groups` and `split` (also as `weightdecay.Group` and so on), `preset`,
and for those who build on them `assign`, its records `Assignment`, `table`, `ROLES` and `PRESETS`.
"""

from weightdecay.groups.assignment import PRESETS, Assignment, Group, assign, preset, table
from weightdecay.groups.building import param_groups, split
from weightdecay.groups.inventory import ROLES

__all__ = ["PRESETS", "ROLES", "Assignment", "Group", "assign", "param_groups", "preset", "split", "table"]
