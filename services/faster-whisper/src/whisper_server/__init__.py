"""A transcription server in the shape of OpenAI's API, on the faster-whisper library."""
