"""The WhisperX server, served in a thread of the test, around an engine that says what the test lets it say."""

from speech_app import Served
from whisperx_server.api import create_app
from whisperx_server.settings import Settings


class ServedX(Served):
    """As `Served`."""

    settings = Settings
    create_app = staticmethod(create_app)
