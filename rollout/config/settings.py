"""Settings of a process: the environment (ROLLOUT_…), and the secrets from it or from their files."""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rollout.config import secret_files
from rollout.config.deploy_file import Config
from rollout.errors import ConfigError


def _lines(given: object) -> object:
    return tuple(secret_files.lines(given)) if isinstance(given, str) else given


def _or_none(given: object) -> object:
    return given or None


Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseSettings):
    """What may differ from process to process. Secrets show neither in `repr` nor in errors."""

    model_config = SettingsConfigDict(
        env_prefix="ROLLOUT_", frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True
    )

    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_lines)] = Field(
        default=(), validation_alias=AliasChoices("ROLLOUT_WEBHOOK_SECRET")
    )
    api_token: Annotated[SecretStr | None, BeforeValidator(_or_none)] = None
    prometheus_token: Annotated[SecretStr | None, BeforeValidator(_or_none)] = None
    lease_s: Annotated[Seconds, Field(ge=2)] = 15.0
    reconcile_s: Seconds = 5.0
    gate_s: Seconds = 0.25
    slots: Annotated[int, Field(ge=1, le=2000)] = 40  # threads of a hosts worker
    ring_again_s: Seconds = 10.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    _watched: secret_files.Watched | None = PrivateAttr(default=None)  # not those of the environment

    @classmethod
    def load(cls, config: Config) -> Self:
        """The environment, completed from the secret files; ConfigError when a value or a file is unusable."""
        try:
            settings = cls()
        except ValidationError as error:
            raise ConfigError(_said(error), remedy="change or unset the variable") from None
        found: dict[str, object] = {}
        file = None if settings.webhook_secrets else config.server.webhook_secret_file
        lines = tuple(secret_files.read(file))
        if lines:
            found["webhook_secrets"] = tuple(map(SecretStr, lines))
        if settings.api_token is None:
            token = secret_files.read(config.server.api_token_file)
            found["api_token"] = SecretStr(token[0]) if token else None
        settings = settings.model_copy(update=found)
        if file is not None and lines:
            settings._watched = secret_files.Watched(file, lines)  # noqa: SLF001  # our own, just made
        return settings

    def secret_texts(self) -> tuple[str, ...]:
        """The webhook secrets, for verifying a signature: those of a file as it is now."""
        if self._watched is not None:
            return self._watched.lines()
        return tuple(secret.get_secret_value() for secret in self.webhook_secrets)


def _said(error: ValidationError) -> str:
    return "\n".join(
        f"{_variable(detail['loc'])}: {detail['msg']}" for detail in error.errors(include_input=False)
    )


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]).upper() if location else ""
    return name if name.startswith("ROLLOUT_") else f"ROLLOUT_{name}"
