#!/bin/sh
# Tests the Host Client in Chromium: builds the pages, and the developer's server unless --url names a host that runs; see run.mjs for the options.
set -eu
cd "$(dirname "$0")/../.."
make -s web
case " $* " in
*" --url "*) ;;
*) cargo build -q -p tessera-hostd-dev ;;
esac
exec node tests/web/run.mjs "$@"
