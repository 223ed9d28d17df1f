"""What a setting is told when it is refused."""

import pytest
from pydantic import BaseModel, ValidationError


def refusal(config: type[BaseModel], settings: dict[str, object]) -> str:
    """The place, the value and the message of the one error that ``settings`` have."""
    with pytest.raises(ValidationError) as caught:
        config.model_validate(settings)
    (error,) = caught.value.errors()
    where = ".".join(str(element) for element in error["loc"])
    return f"{where}={error['input']!r}: {error['msg']}"
