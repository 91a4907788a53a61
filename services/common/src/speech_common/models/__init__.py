"""Whisper models in CTranslate2 format: finding, checking, loading, and keeping them in memory."""
