#!/bin/sh
# Prints the tour of the README, commands and output, in a fence: `sh docs/tour.sh` in the repository, after `make test`
# or `make demo` has made the environment. `sh docs/tour.sh --write` puts it into README.md, between its marks.
# What the commands write goes to a folder that is removed.
set -eu
PATH="$(pwd)/.venv/bin:$PATH"
COLUMNS=100
export PATH COLUMNS
readme=$(pwd)/README.md
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/work"
cd "$folder/work"

run() {
    printf '$ %s\n' "$*"
    "$@" 2>&1 || { cat "$folder/output" >&2; exit 1; }
    printf '\n'
}

tour() {
    run onnx-arch list
    run onnx-arch export resnet18 -o bundles
    run onnx-arch check bundles/resnet18 --json check.jsonl
    run onnx-arch conform --op Conv --op Softmax
    run onnx-arch bench bundles/resnet18 --against torch --json bench.jsonl
    run onnx-arch report check.jsonl bench.jsonl -o report.html
}

tour > "$folder/output"
{
    printf '```console\n'
    sed -e 's/ *$//' -e '$ d' "$folder/output"
    printf '```\n'
} > "$folder/fenced"

if [ "${1:-}" != "--write" ]; then
    cat "$folder/fenced"
    exit
fi
sed -e "/^<!-- tour: /r $folder/fenced" -e '/^<!-- tour: /,/^<!-- end of tour -->/{//!d;}' "$readme" > "$folder/readme"
cat "$folder/readme" > "$readme"
