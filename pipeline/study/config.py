"""The study: everything one run needs, read from YAML and checked before any process starts.

The only reader of YAML. ``load`` reads a file, ``parse`` the same content as plain dicts.

Invariants (``tests/unit/pipeline/study/test_study_config.py``):

1. A study that loads is consistent: keys, types, ranges, and the parts against each other.
2. All errors are listed at once, each with path, value, limit and remedy.
3. What is resolved reads back from its own JSON unchanged, and needs no other file for it.
4. Nothing heavy is imported: a study can be checked on a machine without Ray, torch or PETSc.
5. Somebody's own solver is asked once what it is, by ``parse``; what it said is kept in the study.
"""

from typing import Any

from pydantic import model_validator

from pipeline.errors import ConfigError
from pipeline.study.checks import study_problems
from pipeline.study.unchecked import UncheckedStudy
from pipeline.study.warnings import study_warnings


class StudyConfig(UncheckedStudy):
    """One run of the whole system."""

    @model_validator(mode="after")
    def _check(self) -> "StudyConfig":
        if found := study_problems(self, self):
            raise ConfigError(found)
        return self

    def warnings(self) -> list[str]:
        """What is allowed, but probably not meant."""
        return list(study_warnings(self))

    def as_json(self) -> dict[str, Any]:
        """Plain dicts and lists; ``StudyConfig.model_validate`` reads them back."""
        return self.model_dump(mode="json")
