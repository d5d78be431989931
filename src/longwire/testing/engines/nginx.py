"""nginx, with the stream module, on a configuration that the test writes.

``@PORT0@``, ``@PORT1@`` … in the text stand for free ports: ``listen 127.0.0.1:@PORT0@;`` is ``ports[0]``.
"""

import os
import re
import signal
from pathlib import Path

from longwire.testing.engines.base import Engine, find_program, missing

_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_PORT = re.compile(r"@PORT(\d+)@")


class Nginx(Engine):
    """One nginx. ``config_text`` has ``events``, ``http`` and ``stream``; what comes before them is ours."""

    name = "nginx"
    stop_signal = signal.SIGTERM
    death_signal = "TERM"  # the workers of a master that is killed live on

    def __init__(self, folder: Path, config_text: str) -> None:
        super().__init__(folder)
        self._config_text = config_text
        self.port_count = 1 + max((int(number) for number in _PORT.findall(config_text)), default=-1)

    def configure(self) -> None:
        if not _STREAM.exists():
            raise missing(self.name, str(_STREAM))
        (self.folder / "tmp").mkdir(exist_ok=True)
        (self.folder / "nginx.pid").unlink(missing_ok=True)
        temporary = "".join(f"    {name}_temp_path tmp/{name};\n" for name in _PATHS)
        text = _PORT.sub(lambda found: str(self.ports[int(found[1])]), self._config_text)
        text = re.sub(
            r"^http\s*{\n?", lambda found: f"http {{\n    access_log off;\n{temporary}", text, flags=re.MULTILINE
        )
        # Workers of another user could not reach the temporary files of a folder that is closed to others.
        user = "user root;\n" if os.geteuid() == 0 else ""
        head = f"{user}load_module {_STREAM};\ndaemon off;\npid nginx.pid;\nerror_log stderr;\n"
        (self.folder / "nginx.conf").write_text(head + text)

    def command(self) -> list[str]:
        return [find_program("nginx", self.name), "-p", f"{self.folder}/", "-c", "nginx.conf", "-e", "stderr"]

    def answers(self) -> bool:
        # Written when all listeners are open.
        return (self.folder / "nginx.pid").read_text().strip() == str(self.pid)
