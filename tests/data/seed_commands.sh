# Commands that run as they stand here. A line `#:` names the block below it. Those of `image` have
# their scripts in a folder of that name; here they are at the root.

#: toolkit/extract
for file in *.tar; do tar -xf "$file"; rm "$file"; done

#: toolkit/sample_64_256
MODEL_FLAGS="--attention_resolutions 32,16,8 --class_cond True --large_size 256 --small_size 64 \
--num_channels 192 --num_heads 4 --num_res_blocks 2 --learn_sigma True --resblock_updown True \
--use_fp16 False --use_scale_shift_norm True"
GD_FLAGS="--diffusion_steps 1000 --noise_schedule linear --learn_sigma True --timestep_respacing 250"
SCRIPT_FLAGS="--log_dir logs/ddpm_sr/64_256_step_250 --output_dir outputs/ddpm_sr/64_256_step_250 \
--data_dir ../datasets/imagenet/train --model_path checkpoints/ddpm_sr/64_256_upsampler.pt \
--to_sample_images_dict_path data/sr_imagenet/to_sample_data_info.pkl \
--num_samples_per_image 100 --batch_size 10"

python ddpm_sr_sample.py $MODEL_FLAGS $GD_FLAGS $SCRIPT_FLAGS

#: toolkit/sample_128_512
MODEL_FLAGS="--attention_resolutions 32,16 --class_cond True --large_size 512 --small_size 128 \
--num_channels 192 --num_head_channels 64 --num_res_blocks 2 --learn_sigma True --resblock_updown True \
--use_fp16 True --use_scale_shift_norm True"
GD_FLAGS="--diffusion_steps 1000 --noise_schedule linear --learn_sigma True --timestep_respacing 250"
SCRIPT_FLAGS="--log_dir logs/ddpm_sr/128_512_step_250 --output_dir outputs/ddpm_sr/128_512_step_250 \
--data_dir ../datasets/imagenet/train --model_path checkpoints/ddpm_sr/128_512_upsampler.pt \
--to_sample_images_dict_path data/sr_imagenet/to_sample_data_info.pkl \
--num_samples_per_image 100 --batch_size 5"

python ddpm_sr_sample.py $MODEL_FLAGS $GD_FLAGS $SCRIPT_FLAGS

#: toolkit/mean_train_64_256
MODEL_FLAGS="--attention_resolutions 16 --large_size 256 --small_size 64 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/train_data_info.pkl \
--batch_size 64 --microbatch 8 \
--run_time 47.8 \
--log_dir logs/sr_mean/64_256 --log_interval 10 --save_interval 5000 \
--model_save_dir checkpoints/sr_mean/64_256 --resume_checkpoint model090000.pt \
--debug_mode yes"

python sr_mean_train.py $MODEL_FLAGS $SCRIPT_FLAGS

#: toolkit/mean_test_64_256
MODEL_FLAGS="--attention_resolutions 16 --large_size 256 --small_size 64 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/imagenet/to_sample_data_info.pkl \
--batch_size 10 \
--log_dir logs/sr_mean/64_256 --output_dir outputs/sr_var/64_256 \
--model_path checkpoints/sr_mean/64_256/model090000.pt \
--debug_mode yes"

python sr_mean_test.py $MODEL_FLAGS $SCRIPT_FLAGS

#: toolkit/mean_train_128_512
MODEL_FLAGS="--attention_resolutions 16 --large_size 512 --small_size 128 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/train_data_info.pkl \
--batch_size 64 --microbatch -1 \
--max_step 100000 \
--log_dir logs/sr_mean/128_512 --log_interval 10 --save_interval 5000 \
--model_save_dir checkpoints/sr_mean/128_512 \
--debug_mode yes"

python sr_mean_train.py $MODEL_FLAGS $SCRIPT_FLAGS

#: toolkit/mean_test_128_512
MODEL_FLAGS="--attention_resolutions 16 --large_size 512 --small_size 128 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/imagenet/to_sample_data_info.pkl \
--batch_size 10 \
--log_dir logs/sr_mean/128_512 --output_dir outputs/sr_var/128_512 \
--model_path checkpoints/sr_mean/128_512/model090000.pt \
--debug_mode yes"

python sr_mean_test.py $MODEL_FLAGS $SCRIPT_FLAGS

#: toolkit/var_train_64_256
MODEL_FLAGS="--attention_resolutions 16 --large_size 256 --small_size 64 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4 --last_layer_type none"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/train_data_info.pkl \
--batch_size 64 --microbatch 8 \
--run_time 47.8 \
--log_dir logs/sr_var/64_256 --log_interval 10 --save_interval 5000 \
--model_save_dir checkpoints/sr_var/64_256 --resume_checkpoint model050000.pt \
--mean_model_path checkpoints/sr_mean/64_256/model090000.pt --mean_model_args_path logs/sr_mean/64_256mean_model_args.pkl \
--debug_mode yes"

python sr_var_train.py $MODEL_FLAGS $SCRIPT_FLAGS

#: toolkit/var_test_64_256
MODEL_FLAGS="--attention_resolutions 16 --large_size 256 --small_size 64 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4 --last_layer_type none"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/to_sample_data_info.pkl \
--batch_size 10 \
--log_dir logs/sr_var/64_256 --output_dir outputs/sr_var/64_256 \
--model_path checkpoints/sr_var/64_256/model050000.pt \
--mean_model_path checkpoints/sr_mean/64_256/model090000.pt --mean_model_args_path logs/sr_mean/64_256/mean_model_args.pkl \
--debug_mode yes"

python sr_var_test.py $MODEL_FLAGS $SCRIPT_FLAGS

#: toolkit/var_train_128_512
MODEL_FLAGS="--attention_resolutions 16 --large_size 512 --small_size 128 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4 --last_layer_type none"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/train_data_info.pkl \
--batch_size 64 --microbatch -1 \
--max_step 100000 \
--log_dir logs/sr_var/128_512 --log_interval 10 --save_interval 5000 \
--model_save_dir checkpoints/sr_var/128_512 \
--mean_model_path checkpoints/sr_mean/128_512/model090000.pt --mean_model_args_path logs/sr_mean/128_512/mean_model_args.pkl \
--debug_mode yes"

python sr_var_train.py $MODEL_FLAGS $SCRIPT_FLAGS

#: toolkit/var_test_128_512
MODEL_FLAGS="--attention_resolutions 16 --large_size 512 --small_size 128 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4 --last_layer_type none"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/to_sample_data_info.pkl \
--batch_size 10 \
--log_dir logs/sr_var/128_512 --output_dir outputs/sr_var/128_512 \
--model_path checkpoints/sr_var/128_512/model050000.pt \
--mean_model_path checkpoints/sr_mean/128_512/model090000.pt --mean_model_args_path logs/sr_mean/128_512/mean_model_args.pkl \
--debug_mode yes"

python sr_var_test.py $MODEL_FLAGS $SCRIPT_FLAGS

#: toolkit/verify_64_256
python sr_var_verification.py --data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/to_sample_data_info.pkl --large_size 256 --ddpm_sr_output_dir outputs/ddpm_sr/64_256_step_250 --num_samples 100 --mean_model_step 90000 --var_model_step 50000 --log_dir logs/sr_compare/64_256

#: toolkit/verify_128_512
python sr_var_verification.py --data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/to_sample_data_info.pkl --large_size 512 --ddpm_sr_output_dir outputs/ddpm_sr/128_512_step_250 --num_samples 100 --mean_model_step 90000 --var_model_step 50000 --log_dir logs/sr_compare/128_512

#: paper/extract
for file in *.tar; do tar -xf "$file"; rm "$file"; done

#: paper/sample
MODEL_FLAGS="--attention_resolutions 32,16,8 --class_cond True --large_size 256 --small_size 64 \
--num_channels 192 --num_heads 4 --num_res_blocks 2 --learn_sigma True --resblock_updown True \
--use_fp16 False --use_scale_shift_norm True"
GD_FLAGS="--diffusion_steps 1000 --noise_schedule linear --learn_sigma True --timestep_respacing 250"
SCRIPT_FLAGS="--log_dir logs/ddpm_sr/64_256_step_250 --output_dir outputs/ddpm_sr/64_256_step_250 \
--data_dir ../datasets/imagenet/train --model_path checkpoints/ddpm_sr/64_256_upsampler.pt \
--to_sample_images_dict_path data/sr_imagenet/to_sample_data_info.pkl \
--num_samples_per_image 100 --batch_size 10"

python ddpm_sr_sample.py $MODEL_FLAGS $GD_FLAGS $SCRIPT_FLAGS

#: paper/mean_train
MODEL_FLAGS="--attention_resolutions 16 --large_size 256 --small_size 64 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/train_data_info.pkl \
--batch_size 64 --microbatch 8 \
--log_dir logs/sr_mean/64_256 --log_interval 10 --save_interval 5000 \
--model_save_dir checkpoints/sr_mean/64_256 \
--debug_mode yes"

python sr_mean_train.py $MODEL_FLAGS $SCRIPT_FLAGS

#: paper/mean_test
MODEL_FLAGS="--attention_resolutions 16 --large_size 256 --small_size 64 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/imagenet/to_sample_data_info.pkl \
--batch_size 10 \
--log_dir logs/sr_mean/64_256 --output_dir outputs/sr_var/64_256 \
--model_path checkpoints/sr_mean/64_256/model090000.pt \
--debug_mode yes"

python sr_mean_test.py $MODEL_FLAGS $SCRIPT_FLAGS

#: paper/var_train
MODEL_FLAGS="--attention_resolutions 16 --large_size 256 --small_size 64 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4 --last_layer_type none"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/train_data_info.pkl \
--batch_size 64 --microbatch 8 \
--log_dir logs/sr_var/64_256 --log_interval 10 --save_interval 5000 \
--model_save_dir checkpoints/sr_var/64_256 \
--mean_model_path checkpoints/sr_mean/64_256/model090000.pt --mean_model_args_path logs/sr_mean/64_256mean_model_args.pkl \
--debug_mode yes"

python sr_var_train.py $MODEL_FLAGS $SCRIPT_FLAGS

#: paper/var_test
MODEL_FLAGS="--attention_resolutions 16 --large_size 256 --small_size 64 \
--model_channels 128 --num_heads 4 --num_res_blocks 2 --resblock_updown True \
--use_fp16 True --channel_mult 1,1,2,2,4 --last_layer_type none"
SCRIPT_FLAGS="--data_dir ../datasets/imagenet/train --data_info_dict_path data/sr_imagenet/to_sample_data_info.pkl \
--batch_size 10 \
--log_dir logs/sr_var/64_256 --output_dir outputs/sr_var/64_256 \
--model_path checkpoints/sr_var/64_256/model050000.pt \
--mean_model_path checkpoints/sr_mean/64_256/model090000.pt --mean_model_args_path logs/sr_mean/64_256/mean_model_args.pkl \
--debug_mode yes"

python sr_var_test.py $MODEL_FLAGS $SCRIPT_FLAGS

#: paper/verify
python sr_var_verification.py

#: mnist/train
python mnist_classification.py

#: image/example
MODEL_FLAGS="--image_size 64 --num_channels 128 --num_res_blocks 3"
DIFFUSION_FLAGS="--diffusion_steps 4000 --noise_schedule linear"
TRAIN_FLAGS="--lr 1e-4 --batch_size 128"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS

#: image/imagenet64_uncond
MODEL_FLAGS="--image_size 64 --num_channels 128 --num_res_blocks 3 --learn_sigma True"
DIFFUSION_FLAGS="--diffusion_steps 4000 --noise_schedule cosine"
TRAIN_FLAGS="--lr 1e-4 --batch_size 128"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS

#: image/cifar10_uncond
MODEL_FLAGS="--image_size 32 --num_channels 128 --num_res_blocks 3 --learn_sigma True --dropout 0.3"
DIFFUSION_FLAGS="--diffusion_steps 4000 --noise_schedule cosine"
TRAIN_FLAGS="--lr 1e-4 --batch_size 128"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS

#: image/imagenet64_cond
MODEL_FLAGS="--image_size 64 --num_channels 192 --num_res_blocks 3 --learn_sigma True --class_cond True"
DIFFUSION_FLAGS="--diffusion_steps 4000 --noise_schedule cosine --rescale_learned_sigmas False --rescale_timesteps False"
TRAIN_FLAGS="--lr 3e-4 --batch_size 2048"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS

#: image/upsample_cond
MODEL_FLAGS="--num_channels 192 --num_res_blocks 2 --learn_sigma True --class_cond True"
DIFFUSION_FLAGS="--diffusion_steps 4000 --noise_schedule linear --rescale_learned_sigmas False --rescale_timesteps False"
TRAIN_FLAGS="--lr 3e-4 --batch_size 256"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS

#: image/lsun
MODEL_FLAGS="--image_size 256 --num_channels 128 --num_res_blocks 2 --num_heads 1 --learn_sigma True --use_scale_shift_norm False --attention_resolutions 16"
DIFFUSION_FLAGS="--diffusion_steps 1000 --noise_schedule linear --rescale_learned_sigmas False --rescale_timesteps False"
TRAIN_FLAGS="--lr 1e-4 --batch_size 128"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS

#: image/lsun_2e-5
MODEL_FLAGS="--image_size 256 --num_channels 128 --num_res_blocks 2 --num_heads 1 --learn_sigma True --use_scale_shift_norm False --attention_resolutions 16"
DIFFUSION_FLAGS="--diffusion_steps 1000 --noise_schedule linear --rescale_learned_sigmas False --rescale_timesteps False --use_scale_shift_norm False"
TRAIN_FLAGS="--lr 2e-5 --batch_size 128"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS

#: image/imagenet64_vlb
MODEL_FLAGS="--image_size 64 --num_channels 128 --num_res_blocks 3 --learn_sigma True"
DIFFUSION_FLAGS="--diffusion_steps 4000 --noise_schedule cosine --use_kl True"
TRAIN_FLAGS="--lr 1e-4 --batch_size 128 --schedule_sampler loss-second-moment"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS

#: image/cifar10_vlb
MODEL_FLAGS="--image_size 32 --num_channels 128 --num_res_blocks 3 --learn_sigma True --dropout 0.3"
DIFFUSION_FLAGS="--diffusion_steps 4000 --noise_schedule cosine --use_kl True"
TRAIN_FLAGS="--lr 1e-4 --batch_size 128 --schedule_sampler loss-second-moment"

python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
mpiexec -n $NUM_GPUS python scripts/image_train.py --data_dir path/to/images $MODEL_FLAGS $DIFFUSION_FLAGS $TRAIN_FLAGS
python scripts/image_sample.py --model_path /path/to/model.pt $MODEL_FLAGS $DIFFUSION_FLAGS
