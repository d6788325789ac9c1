#!/bin/sh
# install-locked VENV LOCK: a virtual environment with exactly what a lock names, hashes checked, wheels only, and
# without what nothing uses at run time: pip, the tests of libraries, and headers for compilers.
set -eu
venv=$1 lock=$2

python3 -m venv --without-pip "$venv"
python3 -m pip --python "$venv/bin/python" install --quiet --no-cache-dir --disable-pip-version-check \
  --no-deps --require-hashes --only-binary :all: --requirement "$lock"

site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for library in matplotlib numpy pandas pyarrow scipy sklearn; do
  [ -d "$site/$library" ] || continue
  find "$site/$library" -depth -type d -name tests -exec rm -rf {} +
done
rm -rf "$site/pyarrow/include"
find "$site" -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.a' \) -delete
