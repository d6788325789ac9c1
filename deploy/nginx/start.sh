#!/bin/sh
# Sees that every secret is there before nginx starts, and says what to do where one is not.
set -eu
for name in operators viewers tls_certificate tls_key; do
  if [ ! -s "/run/secrets/$name" ] || [ ! -r "/run/secrets/$name" ]; then
    echo "The secret $name is missing, empty or not readable: see STACK_SECRETS in .env. Make it with deploy/init." >&2
    exit 1
  fi
done
exec nginx -c /etc/nginx/nginx.conf -e stderr -g 'daemon off;'
