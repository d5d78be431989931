"""rsyslog, on a configuration file that the test gives; it listens nowhere."""

from pathlib import Path

from longwire.testing.engines.base import Engine, find_program


class Rsyslog(Engine):
    """One rsyslogd in the foreground, which reads and ships what ``config_text`` says, and nothing of the machine's.

    ``@FOLDER@`` in the text stands for the engine's own folder.
    """

    name = "rsyslog"
    port_count = 0

    def __init__(self, folder: Path, config_text: str) -> None:
        super().__init__(folder)
        self._config_text = config_text

    def configure(self) -> None:
        spool = self.folder / "spool"
        spool.mkdir(exist_ok=True)
        head = f'global(workDirectory="{spool}")\n'
        text = head + self._config_text.replace("@FOLDER@", str(self.folder))
        (self.folder / "rsyslog.conf").write_text(text)

    def prepare(self) -> None:
        """Refuses a configuration with a mistake; rsyslogd itself would go on without the wrong part."""
        self.run([self._program(), "-N1", "-f", str(self.folder / "rsyslog.conf")])

    def command(self) -> list[str]:
        pid = str(self.folder / "rsyslog.pid")
        return [self._program(), "-n", "-f", str(self.folder / "rsyslog.conf"), "-i", pid]

    def answers(self) -> bool:
        return (self.folder / "rsyslog.pid").exists()

    def _program(self) -> str:
        return find_program("rsyslogd", self.name)
