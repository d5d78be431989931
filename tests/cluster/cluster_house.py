"""What tests of the cluster share."""

from pathlib import Path

from longwire.ids import new_message_id
from longwire.reasons import Status
from longwire.testing.cluster import Cluster, SharedEngines
from longwire.testing.engines import Engine
from longwire.testing.process import RawClient
from longwire.wire.packets import FLAG_RECEIPT, Close, Connect, Send, Sent

HERE = Path(__file__).parent


def a_cluster(folder: Path, engines: SharedEngines, **options: object) -> Cluster:
    """Serves the application of these tests; each call of its handlers is a line of the cluster's ``handled``."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"CLUSTER_TEST_LOG": str(folder / "handled"), **options.pop("settings", {})}
    return Cluster(folder, engines, application="cluster_app:app", python_path=HERE, settings=settings, **options)


def go_away(engine: Engine, how: str) -> None:
    """The engine is gone: ``stopped`` or ``frozen``."""
    if how == "frozen":
        engine.freeze()
    else:
        engine.stop()


def back(engine: Engine) -> None:
    """The engine serves again."""
    if engine.is_running:
        engine.thaw()
    else:
        engine.start()


def handled(cluster: Cluster, what: str) -> list[list[str]]:
    """The calls of handlers: kind, device, payload of each."""
    log = cluster.folder / "handled"
    lines = log.read_text().splitlines() if log.exists() else []
    return [words[1:] for line in lines if (words := line.split("\t"))[0] == what]


def refusal(port: int, device_id: str, token: str) -> Close | None:
    """Connects; the CLOSE that was the answer, None where the device was let in."""
    with RawClient(port) as client:
        client.send(Connect(token, device_id), 1)
        packet = client.next().packet
        return packet if isinstance(packet, Close) else None


def answer_to(client: RawClient, to: str) -> Status:
    """Sends a message to ``to``, "" the application; what it is answered."""
    client.send(Send(new_message_id(), to, "k", b""), 5, FLAG_RECEIPT)
    while not isinstance(packet := client.next().packet, Sent):
        pass
    return Status(packet.status)
