#!/bin/sh
# A corpus in N processes of one thread each, on this machine (GNU parallel), then merged.
#
#     sh parallel.sh N OUT INPUT… [OPTION…]       PARALLEL="--sshlogin a,b" for other machines
set -eu
n=$1 out=$2 && shift 2
export RAYON_NUM_THREADS=1
seq "$n" | parallel --quote --jobs "$n" --halt now,fail=1 actscope corpus run "$@" -o "$out" --shard "{}/$n"
exec actscope corpus merge "$out" -o "$out"
