"""Bugs that users of other projects reported, re-enacted small.

Each builder takes whether the bug is mended and returns what `audit` takes. `ISSUES` maps the report to its
builder, the codes that have to be found, and what they may name (a pattern of names; "*": anything or none).
"""

from tests.peers import issue_forms, issue_parameters
from tests.peers.issue_parameters import renamed_in_a_refactor

ISSUES = {
    **issue_parameters.WRONG_PARAMETERS,
    **issue_parameters.TIED,
    **issue_forms.FORM,
    **issue_forms.MECHANICS,
}
__all__ = ["ISSUES", "renamed_in_a_refactor"]
