#!/usr/bin/env bash
# Blue/green as it is often done by hand: bash, nginx in a container, a reload. What bluegreen is compared with, and moves over from.
#
#   recipe.sh up [IP:]PORT             the network and an nginx that has the port
#   recipe.sh deploy SERVICE IMAGE     the other colour, its health, nginx's configuration, reload, the old colour away
#
# PREFIX goes before every name on the engine, NGINX is nginx's image, PORT the application's port (8080); with HOLDER=1 the port is held
# by a container of its own, so that nginx can be replaced without giving it up.
set -euo pipefail

prefix=${PREFIX:-}
network=${prefix}web-gateway
proxy=${prefix}reverse-proxy
port=${PORT:-8080}

say() { echo "$(date +%s.%N | cut -c1-14) $*"; }

up() {
    docker network inspect "$network" >/dev/null 2>&1 || docker network create "$network" >/dev/null
    local where=(--network "$network" -p "$1:80")
    if [ -n "${HOLDER:-}" ]; then
        docker run -d --name "$proxy-ports" --restart always "${where[@]}" "${NGINX:-nginx}" sleep infinity >/dev/null
        where=(--network "container:$proxy-ports")
    fi
    docker run -d --name "$proxy" --restart always "${where[@]}" \
        "${NGINX:-nginx}" nginx -g 'daemon off;' >/dev/null
}

# Says which colour nginx sends requests to.
live() {
    docker exec "$proxy" cat "/etc/nginx/conf.d/$1.conf" 2>/dev/null | sed -n "s|.*http://${prefix}$1_\([A-Z]*\):.*|\1|p"
}

deploy() {
    local service=$1 image=$2 old new=BLUE
    old=$(live "$service" || true)
    if [ "$old" = BLUE ]; then new=GREEN; fi
    docker rm -f "${prefix}${service}_$new" >/dev/null 2>&1 || true
    docker run -d --name "${prefix}${service}_$new" --network "$network" --restart always "$image" >/dev/null
    say "started $new"
    local tries=0
    until docker exec "${prefix}${service}_$new" python3 -c \
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$port/', timeout=1)" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -ge "${TRIES:-60}" ]; then
            say "$new never became healthy"
            docker rm -f "${prefix}${service}_$new" >/dev/null
            return 1
        fi
        sleep 1
    done
    say "$new is ready"
    docker exec -i "$proxy" sh -c "cat > /etc/nginx/conf.d/$service.conf" <<CONF
server {
    listen 80;
    location / {
        proxy_pass http://${prefix}${service}_$new:$port;
        proxy_set_header Host \$host;
        proxy_set_header X-Forwarded-For \$proxy_add_x_forwarded_for;
    }
}
CONF
    docker exec "$proxy" nginx -t -q
    docker exec "$proxy" nginx -s reload 2>/dev/null
    say "switched to $new"
    # So that requests under way may end.
    sleep 2
    if [ -n "$old" ]; then docker rm -f "${prefix}${service}_$old" >/dev/null; fi
    say "done"
}

"$@"
