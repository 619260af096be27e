#!/usr/bin/env bash
# Make the recorded results again, by running everything on small drawn data. They land in runs/recorded; README.md says what is kept.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
source .venv/bin/activate
export OMP_NUM_THREADS=1
root=runs/recorded
data=$root/data
python tools/make_sample_data.py --output "$data" --val-images 8 --frames 6

pretrain() { # NAME RECIPE SEED
    python -m pretrain "$2" --data.path "$data/photos" --data.workers 0 --train.device cpu --train.epochs 2 --optim.warmup-epochs 1 \
        --train.seed "$3" --train.output "$root/pretraining/$1"
    python tools/convert_checkpoint.py "$root/pretraining/$1/checkpoint.pth" "$root/backbones/$1.safetensors"
}

evaluate() { # NAME TASK DATA OPTION...
    local name=$1 task=$2 folder=$3
    shift 3
    python -m eval "$task" --device cpu --backbone "$root/backbones/$name.safetensors" --data "$data/$folder" \
        --output "$root/results/$name/$task" --name "$name" "$@"
}

fine_tune=(--workers 0 --draw-images 0 --batch-size 2)
pretrain dino sample_dino 0
pretrain selfpatch_a sample_selfpatch 0
pretrain selfpatch_b sample_selfpatch 1
for name in dino selfpatch_a selfpatch_b; do
    evaluate "$name" davis DAVIS
    evaluate "$name" classification imagenet --workers 0 --neighbours 5 10 --epochs 2 --batch-size 32
    evaluate "$name" segmentation ade/ADEChallengeData2016 "${fine_tune[@]}" --iterations 8 --crop 64 \
        --train-short-side 96 --test-short-side 96
    evaluate "$name" detection coco "${fine_tune[@]}" --iterations 12 --short-side 96 \
        --override optim_wrapper.optimizer.lr=1e-3 model.train_cfg.rcnn.sampler.num=16 model.test_cfg.rpn.max_per_img=20 \
        model.test_cfg.rcnn.max_per_img=5 model.test_cfg.rcnn.score_thr=0.0
done
name=dino
python -m eval segmentation --device cpu --backbone "$root/backbones/$name.safetensors" --data "$data/ade/ADEChallengeData2016" \
    --output "$root/results/$name/upernet" --name "$name" "${fine_tune[@]}" --head upernet --iterations 2 --crop 64 \
    --train-short-side 96 --test-short-side 96
# Another seed of the fine-tuning, on the same backbone.
python -m eval segmentation --device cpu --backbone "$root/backbones/$name.safetensors" --data "$data/ade/ADEChallengeData2016" \
    --output "$root/results/$name/segmentation_seed1" --name "$name" "${fine_tune[@]}" --iterations 8 --crop 64 \
    --train-short-side 96 --test-short-side 96 --seed 1
