"""The settings of the process, read from the environment and checked once."""

import os
from pathlib import Path

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(Exception):
    """The process cannot start with the variables it was given."""


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", hide_input_in_errors=True)

    data_dir: str = ""
    # How many changes Chroma keeps in its queue before it writes the index files.
    sync_threshold: int = Field(default=100, ge=2, le=100_000)
    token_delay_ms: int = Field(default=20, ge=0, le=10_000)

    # Injected by the platform when the service has a volume.
    trackbed_volume_mount_path: str = ""
    railway_volume_mount_path: str = ""

    @model_validator(mode="after")
    def fill_data_dir(self) -> "Settings":
        if not self.data_dir:
            self.data_dir = self.trackbed_volume_mount_path or self.railway_volume_mount_path or "./data"
        return self

    @property
    def chroma_dir(self) -> Path:
        return Path(self.data_dir) / "chroma"

    def prepare_data_dir(self) -> None:
        """Makes the folder of the index; raises SettingsError when it cannot be written to."""
        try:
            self.chroma_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"cannot make {self.chroma_dir}: {error.strerror} (set DATA_DIR)") from None
        if not os.access(self.chroma_dir, os.W_OK):
            raise SettingsError(f"cannot write to {self.chroma_dir} (set DATA_DIR)")


def load_settings() -> Settings:
    """Returns checked settings; raises SettingsError with a text for people."""
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [f"  {detail['loc'][0]}".upper() + f": {detail['msg']}" for detail in error.errors()]
        raise SettingsError("cannot read the settings\n" + "\n".join(lines)) from None
    settings.prepare_data_dir()
    return settings
