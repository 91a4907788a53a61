"""The local API behind the command line, and the metrics listener. `client` stays free of aiohttp."""
