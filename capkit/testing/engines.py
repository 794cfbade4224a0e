"""Real servers of language models on loopback, each in a process of its own, which can be killed and come back.

`python -m capkit.testing.engines FILE.gguf PORT SLOTS` is llama.cpp's server as the wheel xllamacpp has it.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType

_START_S = 120.0
_CONTEXT = 2048  # tokens of a question with its answer


class Engine:
    """A server started by `words`, in which "PORT" stands for its port; its output goes to `log`.

    with llama_cpp(file, log) as engine:
        ChatServer(f"{engine.url}/v1", "any").ask([Question("hello")])
    """

    def __init__(self, words: list[str], log: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = found.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self._words = [str(port) if word == "PORT" else word for word in words]
        self.start()

    def start(self) -> None:
        """Start the process, at the same port each time, and return at once."""
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self._words, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def wait(self) -> None:
        """Until the model is loaded. Raises RuntimeError with the log if the process ends, or after two minutes."""
        end = time.monotonic() + _START_S
        while self.process.poll() is None and time.monotonic() < end:
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            except OSError:
                time.sleep(0.2)
        raise RuntimeError(f"the server did not start:\n{self.log.read_text()}")

    def cpu_seconds(self) -> float:
        """Processor time of the process (Linux alone): what else the machine does changes it little."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # user and system time

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> "Engine":
        try:
            self.wait()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def llama_cpp(gguf: Path, log: Path, num_slots: int = 8) -> Engine:
    """llama.cpp's server (`pip install xllamacpp`) on one thread, with so many slots."""
    return Engine([sys.executable, "-m", "capkit.testing.engines", str(gguf), "PORT", str(num_slots)], log)


def transformers_serve(model: Path, log: Path) -> Engine:
    """`transformers serve` (`pip install 'transformers[serving]'`) of a folder, on the CPU in float32."""
    program = "import sys; from transformers.cli.transformers import main; sys.argv[0] = 'transformers'; main()"
    words = ["serve", str(model), "--port", "PORT", "--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    return Engine([sys.executable, "-c", program, *words], log)


def _serve_llama_cpp(gguf: str, port: int, num_slots: int) -> None:
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path, settings.model_alias, settings.port = gguf, {Path(gguf).stem}, port
    settings.n_parallel, settings.n_ctx = num_slots, num_slots * _CONTEXT
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(settings)  # answers as long as it is kept
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _serve_llama_cpp(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
