"""nginx in front of autostart, rendered from the configuration. Imports nothing else of ours.

Every limit is autostart's, which tells each in words of its own: what nginx would refuse or give up first would be a
bare error page. Its own limits are therefore off, or longer than all that autostart may take together. The one that
nginx has to hold is `headerTimeout`: it passes headers on when they are whole.

autostart believes nginx. So nginx sets each header that tells who asks, whatever the client has written there.
"""

from autostart.config import Config, Service

_SPARE_S = 30
"""What nginx waits longer than autostart, so that autostart's own answer is the one that arrives."""

_SHARED = """\
# Rendered by `autostart render nginx` from the configuration: change that, and render anew.

map $http_upgrade $autostart_connection {{
    default upgrade;
    ""      "";
}}

upstream autostart {{
    server {server};
    keepalive 64;
}}

server {{
    listen {http_port};
    listen [::]:{http_port};
    server_name {names};

    location /.well-known/acme-challenge/ {{
        root /var/www/html;
    }}
    location / {{
        return 308 https://$host{shown_port}$request_uri;
    }}
}}
"""

_SERVICE = """\

server {{
    listen {https_port} ssl http2;
    listen [::]:{https_port} ssl http2;
    server_name {names};
    ssl_certificate {certificates}/{host}/fullchain.pem;
    ssl_certificate_key {certificates}/{host}/privkey.pem;

    # autostart refuses what is over maxBodySize by itself, before anything wakes.
    client_max_body_size 0;
    client_body_buffer_size 256k;
    # Headers over 64 KiB together are refused by autostart too.
    large_client_header_buffers 4 64k;
    client_header_timeout {header_ms:.0f}ms;
    client_body_timeout {body_s:.0f}s;
    send_timeout {patience_s:.0f}s;

    location / {{
        proxy_pass http://autostart;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $autostart_connection;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Real-IP $remote_addr;
        proxy_set_header Forwarded "";
        proxy_set_header X-Request-Id $request_id;
        proxy_request_buffering off;
        proxy_buffering off;
        proxy_buffer_size 64k;
        proxy_buffers 4 64k;
        # Longer than waiting for the start, connecting and the answer's beginning may take together.
        proxy_send_timeout {patience_s:.0f}s;
        proxy_read_timeout {patience_s:.0f}s;
    }}
}}
"""


def render(
    config: Config, *, certificates: str = "/etc/letsencrypt/live", http_port: int = 80, https_port: int = 443
) -> str:
    """Return a file for nginx's `http` level: a server block with TLS for each service.

    The certificate of a service is expected in a directory of its host name under `certificates`.
    """
    names = [" ".join((host, *service.aliases)) for host, service in config.services.items()]
    shared = _SHARED.format(
        server=_reached_at(config),
        names=" ".join(names) or "_",
        http_port=http_port,
        shown_port="" if https_port == 443 else f":{https_port}",
    )
    servers = [
        _SERVICE.format(
            host=host,
            names=named,
            https_port=https_port,
            certificates=certificates,
            header_ms=config.header_timeout * 1000,
            body_s=patience_s(service) + service.body_timeout,
            patience_s=patience_s(service),
        )
        for (host, service), named in zip(config.services.items(), names, strict=True)
    ]
    return "".join((shared, *servers))


def patience_s(service: Service) -> float:
    """Return for how many seconds autostart may say nothing to a request, and some more."""
    wait_s = service.start_timeout if service.wait_timeout is None else service.wait_timeout
    return wait_s + service.connect_timeout + service.response_timeout + _SPARE_S


def _reached_at(config: Config) -> str:
    """Return the address to pass requests on to: a unix socket where there is one."""
    return min(config.listen, key=lambda address: not address.startswith("unix:"))
