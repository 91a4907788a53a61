"""WhisperX behind HTTP: who said what, and exactly when."""
