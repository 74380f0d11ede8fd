# Settings of all job scripts, as bash reads them. Other settings: a copy, and submit.py --config COPY
# (with sbatch itself: CONFIG=COPY sbatch ...). Paths hold no spaces; they start at the toolkit's root
# or, in flags of scripts, with a tilde at the home folder.
# OPTIONS go to sbatch with every step, <STEP>_OPTIONS with one; <STEP>_FLAGS go to its script.

OPTIONS=""                          # such as --partition and --account
GPU_OPTIONS="--nodes 1 --gpus-per-node 4 --cpus-per-task 32 --time 48:00:00"
LAUNCHER=torchrun                   # what starts a node's processes: torchrun or srun

RUN=64_256
DATA_FLAGS="--data_dir ../datasets/imagenet/train"
TRAIN_DATA_FLAGS="$DATA_FLAGS --data_info_dict_path data/sr_imagenet/train_data_info.pkl"
TEST_DATA_FLAGS="$DATA_FLAGS --data_info_dict_path data/sr_imagenet/to_sample_data_info.pkl"
SIZE_FLAGS="--large_size 256 --small_size 64"
NUM_SAMPLES=100
SAMPLES_DIR=outputs/ddpm_sr/${RUN}_step_250
NETS_DIR=outputs/sr_var/$RUN

# ---- sample: each task of the array draws images that no other one has claimed
SAMPLE_OPTIONS="$GPU_OPTIONS --array 0-7"
MODEL_FLAGS="--attention_resolutions 32,16,8 --class_cond True $SIZE_FLAGS \
--num_channels 192 --num_heads 4 --num_res_blocks 2 --learn_sigma True --resblock_updown True \
--use_fp16 False --use_scale_shift_norm True"
GD_FLAGS="--diffusion_steps 1000 --noise_schedule linear --learn_sigma True --timestep_respacing 250"
SCRIPT_FLAGS="$DATA_FLAGS --to_sample_images_dict_path data/sr_imagenet/to_sample_data_info.pkl \
--model_path checkpoints/ddpm_sr/${RUN}_upsampler.pt --log_dir logs/ddpm_sr/${RUN}_step_250 \
--output_dir $SAMPLES_DIR --num_samples_per_image $NUM_SAMPLES --batch_size 10"
SAMPLE_FLAGS="$MODEL_FLAGS $GD_FLAGS $SCRIPT_FLAGS"

# ---- mean_train, mean_test, var_train, var_test: batch sizes are per process
# (nets that know the class, as the sampler above does: add --class_cond True to MODEL_FLAGS below;
# the tests follow the checkpoints)
MODEL_FLAGS="--attention_resolutions 16 $SIZE_FLAGS \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4"
TRAIN_FLAGS="$TRAIN_DATA_FLAGS --batch_size 16 --microbatch 8 \
--log_interval 10 --save_interval 5000 --resume_checkpoint auto"

MEAN_STEP=90000
MEAN_TRAIN_OPTIONS=$GPU_OPTIONS
MEAN_TRAIN_FLAGS="$MODEL_FLAGS $TRAIN_FLAGS --max_step $MEAN_STEP \
--log_dir logs/sr_mean/$RUN --model_save_dir checkpoints/sr_mean/$RUN"

MEAN_MODEL_PATH=checkpoints/sr_mean/$RUN/model$(printf %06d $MEAN_STEP).pt
MEAN_TEST_OPTIONS="--nodes 1 --gpus-per-node 1 --cpus-per-task 8 --time 12:00:00"
MEAN_TEST_FLAGS="$TEST_DATA_FLAGS --model_path $MEAN_MODEL_PATH --batch_size 10 \
--log_dir logs/sr_mean/$RUN --output_dir $NETS_DIR"

VAR_STEP=50000
MEAN_MODEL_FLAGS="--mean_model_path $MEAN_MODEL_PATH --mean_model_args_path logs/sr_mean/$RUN/mean_model_args.pkl"
VAR_TRAIN_OPTIONS=$GPU_OPTIONS
VAR_TRAIN_FLAGS="$MODEL_FLAGS --last_layer_type none $TRAIN_FLAGS --max_step $VAR_STEP $MEAN_MODEL_FLAGS \
--log_dir logs/sr_var/$RUN --model_save_dir checkpoints/sr_var/$RUN"

VAR_TEST_OPTIONS=$MEAN_TEST_OPTIONS
VAR_TEST_FLAGS="$TEST_DATA_FLAGS --model_path checkpoints/sr_var/$RUN/model$(printf %06d $VAR_STEP).pt \
$MEAN_MODEL_FLAGS --batch_size 10 --log_dir logs/sr_var/$RUN --output_dir $NETS_DIR"

# ---- verify
VERIFY_OPTIONS="--nodes 1 --cpus-per-task 16 --time 12:00:00"
VERIFY_FLAGS="$TEST_DATA_FLAGS --large_size 256 --ddpm_sr_output_dir $SAMPLES_DIR \
--sr_model_output_dir $NETS_DIR --num_samples $NUM_SAMPLES \
--mean_model_step $MEAN_STEP --var_model_step $VAR_STEP --log_dir logs/sr_compare/$RUN"

# ---- noisy_labels, which stands alone
NOISY_LABELS_OPTIONS="--nodes 1 --cpus-per-task 16 --time 48:00:00"
NOISY_LABELS_FLAGS="--data_dir data/mnist --log_dir logs/noisy_label_sweep/mnist \
--output_dir outputs/noisy_label_sweep/mnist"
