"""How a configuration checks a component's ``config.json``: by its fields and by tables, so that it stays data."""

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar


class ConfigError(ValueError):
    """A configuration that the models do not implement; the message names the component, the field and the value."""


_KINDS = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a positive whole number", lambda value: type(value) is int and value > 0),
    float: ("a finite number", lambda value: type(value) in (int, float) and math.isfinite(value)),
    str: ("a name", lambda value: isinstance(value, str)),
}


# Keys of any component that change what its weights mean, and what to do. Their value may be null.
REFUSED = {
    "quantization_config": "its weights are quantized: load the checkpoint in its library, dequantize it and save it again",
    "compression_config": "its weights are compressed: save the checkpoint again without compression",
}
DEFAULTED = "_use_default_values"  # diffusers: names of keys that the model's class is to choose the value of


def names(*tables: dict[str, str]) -> dict[str, str]:
    """name -> reason, of tables from a reason to names in one string."""
    return {name: reason for table in tables for reason, listed in table.items() for name in listed.split()}


@dataclass(frozen=True)
class Config:
    """Base of the configurations. A key of ``config.json`` belongs to one of

    the dataclass fields, of which `accepted` limits the values; `fixed` fields, for which only the listed values (the
    reference's default first) are implemented; `ignored` fields (name -> reason), which have no influence on inference,
    like all whose name starts with an underscore. Any other key, and any value out of range, is a ConfigError that names
    it, as is a key of REFUSED. Keys that DEFAULTED lists count as missing.
    """

    component: ClassVar[str]
    accepted: ClassVar[dict[str, tuple]] = {}
    fixed: ClassVar[dict[str, tuple]] = {}
    ignored: ClassVar[dict[str, str]] = {}

    @classmethod
    def from_dict(cls, values: dict[str, Any]):
        """The configuration in a component's parsed ``config.json``; ConfigError where it is not implemented."""
        if not isinstance(values, dict):
            raise ConfigError(f"{cls.component} configuration: expected a dictionary of fields, not {values!r}")
        known = {field.name for field in fields(cls)}
        defaulted = values.get(DEFAULTED, ())
        cls._require(isinstance(defaulted, (list, tuple)), DEFAULTED, defaulted, "a list of names")
        chosen = {}
        for name, value in values.items():
            if name in defaulted:
                continue
            if name in REFUSED:
                if value is not None:
                    raise ConfigError(f"{cls.component} configuration: it has a {name}: {REFUSED[name]}")
            elif name in known:
                chosen[name] = tuple(value) if isinstance(value, list) else value
            elif name in cls.fixed:
                cls._require(value in cls.fixed[name], name, value, _alternatives(cls.fixed[name]))
            elif name not in cls.ignored and not name.startswith("_"):
                raise ConfigError(f"{cls.component} configuration: field {name} = {value!r} is not implemented")
        return cls(**chosen)

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            self._check_kind(field.name, value, field.type)
            if field.name in self.accepted:
                allowed = self.accepted[field.name]
                for item in value if isinstance(value, tuple) else (value,):
                    self._require(item in allowed, field.name, value, _alternatives(allowed))
        self._check()

    def _check(self):
        """Relations between fields; subclasses raise ConfigError through `_require`."""

    @classmethod
    def _require(cls, condition, name, value, expected):
        if not condition:
            raise ConfigError(
                f"{cls.component} configuration: {name} = {value!r} is not supported; expected {expected}"
            )

    @classmethod
    def _check_kind(cls, name, value, kind):
        alternatives = getattr(kind, "__args__", (kind,))
        if type(None) in alternatives:  # `int | None`
            if value is None:
                return
            kind = alternatives[0]
        elif Ellipsis in alternatives:  # `tuple[int, ...]`
            words, test = _KINDS[alternatives[0]]
            valid = isinstance(value, tuple) and value and all(map(test, value))
            cls._require(valid, name, value, f"a list, each item {words}")
            return
        words, test = _KINDS[kind]
        cls._require(test(value), name, value, words)

    def _check_length(self, name, levels_name):
        """List `name` has one item for each of list `levels_name`."""
        value, levels = getattr(self, name), len(getattr(self, levels_name))
        self._require(len(value) == levels, name, value, f"one for each of the {levels} {levels_name}")

    def _check_multiple(self, name, divisor_name, divisor):
        """Every number in field `name` is a multiple of `divisor`."""
        value = getattr(self, name)
        divides = all(item % divisor == 0 for item in (value if isinstance(value, tuple) else (value,)))
        self._require(divides, name, value, f"multiples of {divisor_name} = {divisor}")


def _alternatives(values):
    return " or ".join(repr(value) for value in values)
