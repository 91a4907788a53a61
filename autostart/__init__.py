"""autostart: a reverse proxy that starts services on the first request and stops idle ones."""
