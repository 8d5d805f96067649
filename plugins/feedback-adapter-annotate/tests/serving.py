"""For `test_kills.py`: a program that serves a folder again and again, in a child for each line.

What takes long, the imports and the model, is there before the first child. A child is a server
like any other; its parent prints its process number and its port, and waits for the next line.
"""

import os
import socket
import sys
from pathlib import Path

import torch

from fa_annotate.answers import Answers
from fa_annotate.desk import Folder
from fa_annotate.photos import Photos
from fa_annotate.serve import serve
from fa_annotate.session import Session
from feedback_adapter.testing import tiny_adapter
from feedback_adapter.transform import Transform


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    adapter = tiny_adapter()
    adapter.transform = Transform((16, 16))
    for _ in sys.stdin:
        place = socket.socket()
        place.bind(("127.0.0.1", 0))
        place.listen()
        child = os.fork()
        if child == 0:
            sys.stdout = sys.stderr
            photos = Photos.of(folder)
            session = Session(adapter, "tiny", photos, Answers.open(photos.folder))
            serve(Folder(session), place, "127.0.0.1", None, open_page=False)
            os._exit(0)
        port = place.getsockname()[1]
        place.close()
        os.write(1, f"{child} {port}\n".encode())
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
