"""The settings of one process, read from the environment and checked once."""

import logging
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

log = logging.getLogger(__name__)

DEVELOPMENT_SECRET_KEY = "development-only-and-known-to-everyone"
SECRET_KEY_MIN_LENGTH = 32


class SettingsError(Exception):
    """The process cannot start with the variables it was given."""


class Requirement(NamedTuple):
    name: str
    hint: str


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    environment: Literal["development", "production"] = "development"
    database_url: str = ""
    secret_key: str = ""
    backend_url: str = ""
    frontend_origins: Annotated[list[str], NoDecode] = []

    anthropic_api_key: str = ""
    anthropic_model: str = "claude-sonnet-4-5"
    anthropic_base_url: str = "https://api.anthropic.com"

    google_client_id: str = ""
    google_client_secret: str = ""
    microsoft_client_id: str = ""
    microsoft_client_secret: str = ""
    microsoft_tenant: str = "common"
    auth_disabled: bool = False

    token_delay_ms: int = Field(default=30, ge=0, le=10_000)

    # Injected by the platform when the service has a volume.
    trackbed_volume_mount_path: str = ""
    railway_volume_mount_path: str = ""

    @field_validator("frontend_origins", mode="before")
    @classmethod
    def split_at_commas(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return [origin.strip().rstrip("/") for origin in value.split(",") if origin.strip()]

    @model_validator(mode="after")
    def fill_development_defaults(self) -> "Settings":
        if self.is_production:
            return self
        if not self.database_url:
            mount = self.trackbed_volume_mount_path or self.railway_volume_mount_path
            directory = mount.rstrip("/") if mount else "."
            self.database_url = f"sqlite+aiosqlite:///{directory}/assistant.db"
        if not self.secret_key:
            self.secret_key = DEVELOPMENT_SECRET_KEY
        return self

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    @property
    def providers(self) -> list[str]:
        """The sign-in providers that are switched on; none means everyone is a guest."""
        if self.auth_disabled:
            return []
        client_ids = {"google": self.google_client_id, "microsoft": self.microsoft_client_id}
        return [provider for provider, client_id in client_ids.items() if client_id]

    def validate_required(self) -> None:
        """Raises SettingsError with every missing variable at once, not the first."""
        missing = self._missing_provider_secrets()
        if self.is_production:
            missing = self._missing_in_production() + missing
        elif self.secret_key == DEVELOPMENT_SECRET_KEY:
            log.warning("SECRET_KEY is not set: session cookies are signed with a public value")
        if not missing:
            return
        width = max(len(requirement.name) for requirement in missing)
        lines = [f"  {name:<{width}}  {hint}" for name, hint in missing]
        raise SettingsError(
            f"cannot start in {self.environment}: required variables are missing or unfit\n"
            + "\n".join(lines)
        )

    def _missing_in_production(self) -> list[Requirement]:
        missing = []
        if not self.database_url:
            missing.append(
                Requirement(
                    "DATABASE_URL",
                    "where the data lives, such as sqlite+aiosqlite:////data/assistant.db",
                )
            )
        if len(self.secret_key) < SECRET_KEY_MIN_LENGTH or self.secret_key == DEVELOPMENT_SECRET_KEY:
            missing.append(
                Requirement(
                    "SECRET_KEY",
                    f"signs session cookies, at least {SECRET_KEY_MIN_LENGTH} random characters: "
                    'python -c "import secrets; print(secrets.token_urlsafe(48))"',
                )
            )
        if not self.backend_url:
            missing.append(
                Requirement(
                    "BACKEND_URL",
                    "the public address of this service, such as https://assistant.example.com",
                )
            )
        if not self.providers and not self.auth_disabled:
            missing.append(
                Requirement(
                    "GOOGLE_CLIENT_ID",
                    "a sign-in provider (or MICROSOFT_CLIENT_ID, or AUTH_DISABLED=true to let anyone in)",
                )
            )
        return missing

    def _missing_provider_secrets(self) -> list[Requirement]:
        secrets = {"google": self.google_client_secret, "microsoft": self.microsoft_client_secret}
        return [
            Requirement(f"{provider.upper()}_CLIENT_SECRET", f"belongs to {provider.upper()}_CLIENT_ID")
            for provider in self.providers
            if not secrets[provider]
        ]


def load_settings() -> Settings:
    """Returns checked settings; raises SettingsError with a text for people."""
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [f"  {detail['loc'][0]}".upper() + f": {detail['msg']}" for detail in error.errors()]
        raise SettingsError("cannot read the settings\n" + "\n".join(lines)) from None
    settings.validate_required()
    return settings
