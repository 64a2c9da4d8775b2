#!/usr/bin/env bash
# Runs a recipe on the nodes of a Slurm allocation, all started alike: sbatch clusters/slurm.sh RECIPE [KEY=VALUE...]
#   sbatch --nodes=4 clusters/slurm.sh recipes/quickstart.yaml runs=/shared/runs store=/shared/store train.workers=4
# A job that is requeued, or submitted again, resumes the run: keep `runs` and `store` on a file system that all nodes see.
#SBATCH --job-name=cluenet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --requeue
#SBATCH --output=slurm-%j.log
# --mem=0: all memory of a node. --exclusive: symmetric-run ends every Ray of the user on its nodes, also another job's.
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: sbatch clusters/slurm.sh RECIPE [KEY=VALUE...]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:?start me with sbatch}"
if [[ -x .venv/bin/python ]]; then
  PATH=$PWD/.venv/bin:$PATH
fi

# Ray's processes live in their own folder of the node, and two jobs of one port would meet.
port=$((10000 + SLURM_JOB_ID % 20000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
address=$head_ip:$port

# Ray waits 30 s for the other nodes, and a shared file system that many nodes read at once is slower than that.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
# symmetric-run ends with 0 when Ray did not start; the command then never ran.
done=$PWD/.slurm-$SLURM_JOB_ID.done
rm -f "$done"

# The quotes inside belong to the shell on the head node.
# shellcheck disable=SC2016
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --kill-on-bad-exit=0 \
  ray symmetric-run --address "$address" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" -- \
  bash -c 'python -m cluenet run "${@:3}" --address "$1" && touch "$2"' run "$address" "$done" "$@"

if [[ ! -e $done ]]; then
  echo "the run did not come to its end; see above, and submit the same again to resume" >&2
  exit 1
fi
rm -f "$done"
