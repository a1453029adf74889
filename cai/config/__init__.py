"""One run's configuration: YAML file, environment and flags, checked as a whole."""

from cai.config.reading import ReadConfig, changed_config, read_config, read_section
from cai.config.settings import EngineSettings, RunConfig

__all__ = ["EngineSettings", "ReadConfig", "RunConfig", "changed_config", "read_config", "read_section"]
