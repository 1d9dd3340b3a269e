#!/bin/sh
# Prints the tour of the README, commands and output: `sh docs/tour.sh` in the repository, after `make test` or `make demo`
# has made the environment. What the commands write goes to a folder that is removed.
set -eu
PATH="$(pwd)/.venv/bin:$PATH"
COLUMNS=100
export PATH COLUMNS
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

run() {
    printf '$ %s\n' "$*"
    "$@" 2>&1
    printf '\n'
}

run onnx-arch list
run onnx-arch export resnet18 -o bundles
run onnx-arch check bundles/resnet18 --json check.jsonl
run onnx-arch bench bundles/resnet18 --against torch --json bench.jsonl
run onnx-arch report check.jsonl bench.jsonl -o report.html
