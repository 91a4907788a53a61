"""Recordings as sound: decoding them, hearing where a voice is, and cutting them at silences."""
