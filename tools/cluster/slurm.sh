#!/bin/sh
#SBATCH --job-name=corpus --requeue --open-mode=append
# A corpus as an array of N Slurm jobs, and a job that merges them when all have succeeded. A task that is killed or
# requeued goes on where it ended.
#
#     sh slurm.sh N OUT INPUT… [OPTION…]          SBATCH="--partition=cpu --cpus-per-task=8" for options of sbatch
set -eu
if [ -n "${SLURM_ARRAY_TASK_ID-}" ]; then
    out=$1 && shift
    exec actscope corpus run "$@" -o "$out" --shard auto
fi
n=$1 && shift
array=$(sbatch ${SBATCH-} --parsable --array="1-$n" "$0" "$@")
export OUT="$1"
sbatch ${SBATCH-} --dependency="afterok:$array" --job-name=corpus-merge \
    --wrap 'exec actscope corpus merge "$OUT" -o "$OUT"'
