"""What every command gets: the configuration, the app, whether to print JSON, and the neighbours when it needs them."""

import getpass
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rollout.cli import output
from rollout.cli.words import readable

if TYPE_CHECKING:
    from rollout.config.deploy_file import AppConfig, Config
    from rollout.config.settings import Settings
    from rollout.domain.model import AppName
    from rollout.services.bell import BackgroundBell
    from rollout.services.ports import Deps
    from rollout.store.store import Store


@dataclass(slots=True)
class Call:
    """One call of one command. Heavy modules are imported when a command first needs them."""

    config_path: Path | None = None
    app_name: str | None = None
    json: bool = False
    _config: "Config | None" = field(default=None, repr=False)
    _store: "Store | None" = field(default=None, repr=False)
    _deps: "Deps | None" = field(default=None, repr=False)
    _bell: "BackgroundBell | None" = field(default=None, repr=False)

    @property
    def config(self) -> "Config":
        """The configuration, as it is in the file; an app whose table is wrong is told, and in nobody's way who means another. ConfigError."""
        if self._config is None:
            from rollout.config import deploy_file

            self._config = deploy_file.usable(self.config_path)
            for name, wrong in self._config.left_out.items():
                if name != self.app_name:  # else it is the command's own error
                    output.warn(output.clean(f"app {name} is left out: {wrong}", lines=True))
        return self._config

    @property
    def store(self) -> "Store":
        """The store alone, with its schema up to date: all that reading commands need, and quick."""
        if self._deps is not None:
            return self._deps.store
        if self._store is None:
            from rollout.store.store import Store

            self._store = Store(self.config.server.database_url)
            self._store.prepare()
        return self._store

    @property
    def deps(self) -> "Deps":
        """All the neighbours, with the schema of the store up to date. No command waits for the broker: see `BackgroundBell`."""
        if self._deps is None:
            from rollout import wiring
            from rollout.services.bell import BackgroundBell

            deps = wiring.configured(self.config.path, role="cli")
            self._bell = BackgroundBell(deps.bell, "cli")
            self._deps = replace(deps, bell=self._bell)
            log_quietly(deps.settings)
        return self._deps

    @property
    def settings(self) -> "Settings":
        """Those of this process, logs as quiet as they say: what a stop needs besides the store, and quick."""
        from rollout.config.settings import Settings

        settings = Settings.load(self.config)
        log_quietly(settings)
        return settings

    def app(self) -> "AppConfig":
        """The app that is meant; ConfigError when it could be several."""
        return self.config.app(self.app_name)

    def apps(self) -> "list[AppName]":
        """The app that is meant, or all of them; also those whose tables are wrong: of them the store still tells."""
        from rollout.domain.model import AppName

        if self.app_name is None:
            return [AppName(name) for name in self.config.names]
        if self.app_name in self.config.left_out:
            return [AppName(self.app_name)]
        return [AppName(self.app().name)]

    def close(self) -> None:
        """Send the messages that wait, for two seconds, and give connections back."""
        if self._bell is not None:
            self._bell.close()
            self._bell = None
        if self._deps is not None:
            self._deps.fleet.close()
            self._deps.store.close()
            self._deps = None
        if self._store is not None:
            self._store.close()
            self._store = None


def log_quietly(settings: "Settings") -> None:
    """Logs go to standard error, and only errors unless ROLLOUT_LOG_LEVEL says otherwise: the command tells the rest."""
    from rollout import logs

    chosen = "log_level" in settings.model_fields_set
    logs.configure(settings if chosen else settings.model_copy(update={"log_level": "error"}))


def who() -> str:
    """The person, for the audit."""
    try:
        return f"cli:{readable(getpass.getuser())}"
    except (KeyError, OSError):  # a user id without a name, as in containers
        return f"cli:{os.getuid()}"
