"""What the speech services share: requests, transcripts, formats and errors in the shape of OpenAI's API.

This file imports nothing: a service reads its settings and opens its socket before the web framework
(0.4 s) is paid for.
"""
