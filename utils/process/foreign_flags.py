"""What other tools call flags of this one: an unknown flag is answered with a known one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TypeVar

T = TypeVar("T")

# what is meant: the first of the flags that the script has → what others call it
_FLAGS: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        # training
        ("max_step",): """iterations iters num_iterations num_iters n_iter n_iters niter max_iter
            max_iters max_iterations total_iterations train_iters training_iterations total_steps
            max_steps train_steps training_steps total_training_steps num_train_steps
            max_train_steps train_num_steps num_training_steps epochs num_epochs n_epochs
            max_epochs nb_epochs num_train_epochs total_epochs""",
        ("max_step", "timestep_respacing"): "steps num_steps n_steps",
        ("lr_anneal_steps",): "anneal_lr lr_anneal anneal_steps lr_decay lr_decay_steps",
        ("lr_schedule",): "lr_func lr_scheduler scheduler lr_policy",
        ("lr_warmup_steps",): "warmup warmup_steps num_warmup_steps lr_warmup warmup_iters",
        ("lr",): "learning_rate base_lr lrate",
        ("weight_decay",): "wd",
        ("optimizer",): "optim optimizer opt",
        ("ema_rate",): "ema ema_decay use_ema ema_rates ema_beta",
        ("batch_size",): """batch bs batch_sz train_batch_size eval_batch_size batch_gpu
            sample_batch_size batch_size_per_gpu per_device_train_batch_size""",
        ("microbatch",): """micro_batch microbatch_size micro_batch_size grad_accum
            gradient_accumulation_steps accumulate_grad_batches gradient_accumulate_every""",
        ("save_interval",): """save_every save_freq save_steps save_step checkpointing_steps
            ckpt_interval ckpt_every checkpoint_interval checkpoint_every save_and_sample_every
            save_model_interval save_model_interval_epochs save_model_epochs save_model_steps""",
        ("keep_last_k",): "checkpoints_total_limit save_total_limit keep_last max_to_keep",
        ("log_interval",): "log_every log_freq log_steps logging_steps print_freq print_every",
        ("sample_interval",): "sample_every sample_freq save_images_epochs vis_freq",
        ("num_grid_samples",): "num_vis",
        ("val_data_dir", "val_data_info_dict_path"): """val_data_dir val_dir val_data val_path
            valid_dir eval_dir eval_data_dir""",
        ("val_images",): """num_val_images val_size num_val val_num num_val_samples
            num_eval_images""",
        ("val_share",): "val_split validation_split val_ratio val_fraction",
        ("val_interval",): """eval_interval eval_every eval_steps eval_freq validation_steps
            validation_interval val_every val_freq val_steps val_check_interval""",
        ("run_time",): "time_limit max_time max_hours",
        ("resume_checkpoint",): """resume resume_from resume_path resume_from_checkpoint
            start_epoch continue_train load_checkpoint""",
        ("init_from", "resume_checkpoint"): "pretrain pretrained pretrain_path pretrained_path",
        ("model_path", "resume_checkpoint"): """weight_path weights_path weights ckpt ckpt_path
            checkpoint checkpoint_path model model_file load_path network_pkl model_checkpoint
            model_path_checkpoints
            pretrained_model_name_or_path""",
        ("use_fp16", "classifier_use_fp16"): "fp16 half amp use_amp use_half mixed_precision",
        ("use_bf16",): "bf16",
        ("use_checkpoint",): "gradient_checkpointing grad_checkpoint checkpointing",
        ("num_workers", "num_threads", "num_processes"): """workers num_workers num_worker
            n_workers dataloader_num_workers num_threads n_threads threads""",
        # folders
        ("model_save_dir", "output_dir", "log_dir"): """save_dir savedir save_path ckpt_dir
            checkpoint_dir checkpoints_dir model_dir""",
        ("output_dir", "model_save_dir", "log_dir"): """result_path results_path result_dir
            results_dir outdir out_dir outf output output_path sample_dir samples_dir""",
        ("log_dir",): "logdir log_path logging_dir tensorboard_dir run_name exp_name",
        ("data_dir", "archive"): """dataset_path dataset_dir dataset data data_path dataroot
            data_root datadir train_dir train_data_dir image_dir images_dir img_dir base_samples""",
        ("data_info_dict_path", "to_sample_images_dict_path"): """data_info_dict_path
            to_sample_images_dict_path data_info data_info_path""",
        # images
        ("image_size", "large_size"): """image_size large_size resolution img_size size
            image_resolution img_resolution sample_size crop_size input_size hr_size
            r_resolution""",
        ("small_size",): "lr_size low_res_size l_resolution",
        ("random_flip",): "flip hflip horizontal_flip mirror xflip",
        ("random_turn",): "rotate rotation random_rotate random_rotation random_rot rot90 use_rot",
        ("random_crop",): "center_crop",
        ("seed",): "random_seed manual_seed",
        # networks
        ("num_channels", "model_channels", "classifier_width"): """num_channels model_channels
            base_channels base_width width dim ch nf inner_channel unet_dim""",
        ("channel_mult", "classifier_channel_mult"): """channel_mult channel_mults ch_mult
            channel_multiplier channel_multipliers dim_mults""",
        ("num_res_blocks", "classifier_depth"): """num_res_blocks res_blocks n_res_blocks
            num_resblocks layers_per_block depth""",
        ("attention_resolutions", "classifier_attention_resolutions"): """attention_resolutions
            attention_resolution attn_resolutions attn_res attn""",
        ("num_heads",): "heads n_heads attn_heads num_attention_heads",
        ("num_head_channels", "classifier_num_head_channels"): """num_head_channels head_dim
            attention_head_dim""",
        ("act",): "activation activation_fn activation_function act_fn act_layer nonlinearity",
        ("dropout",): "drop dropout_rate drop_rate dropout_prob",
        ("class_cond",): "conditional class_conditional conditioned cond use_labels",
        ("num_classes",): "n_classes n_class nclass label_dim num_class",
        ("class_dropout",): """p_uncond uncond_prob cond_drop_prob label_dropout cfg_dropout
            class_dropout_prob""",
        # process and sampling
        ("diffusion_steps",): """timesteps num_timesteps n_timesteps time_steps noise_steps
            num_diffusion_steps diffusion_timesteps num_diffusion_timesteps ddpm_num_steps""",
        ("loss_type", "loss"): "loss loss_fn loss_function criterion",
        ("noise_schedule",): "schedule schedule_name beta_schedule ddpm_beta_schedule",
        ("learn_sigma",): "learned_sigma learn_variance learn_var",
        ("predict_xstart",): "predict_x0 predict_x_start prediction_type pred_type predict_epsilon",
        ("timestep_respacing",): """sampling_steps sample_steps sampling_timesteps ddim_steps
            num_inference_steps ddpm_num_inference_steps inference_steps num_sampling_steps nfe""",
        ("sampler",): "sample use_ddim sampling_method sample_method solver sampler_name",
        ("num_samples", "num_samples_per_image", "num_images"): """num_samples n_samples nsamples
            num_sample num_images num_fid_samples total_samples number""",
        ("labels",): "class_name class_id class_idx class_label class_labels classes label",
        ("guidance_scale",): "cfg cfg_scale cond_scale unconditional_guidance_scale guidance",
        ("classifier_scale",): "classifier_guidance_scale",
        ("alpha", "alphas"): "noise_rate noise_ratio noise_level",
        ("debug_mode",): "debug verbose",
        ("dry_run",): "dryrun",
    }
)
# what has no flag here, or another unit
_REMARKS: Mapping[str, str] = MappingProxyType(
    {
        "trainings count steps, not epochs": """epochs num_epochs n_epochs max_epochs nb_epochs
            num_train_epochs total_epochs start_epoch save_model_interval_epochs save_model_epochs
            save_images_epochs""",
        "the number of steps over which it falls": "anneal_lr lr_anneal",
        "the share of right labels": "noise_rate noise_ratio noise_level",
        "the size of a part of the batch, not their number": """grad_accum
            gradient_accumulation_steps accumulate_grad_batches gradient_accumulate_every""",
        "CUDA_VISIBLE_DEVICES chooses the GPU": """gpu gpus gpu_id gpu_ids device devices use_gpu
            main_gpu cuda no_cuda""",
        "start several processes with torchrun or mpiexec": """distributed world_size num_gpus
            n_gpus ngpu nproc nproc_per_node ddp multi_gpu""",
    }
)


def _by_word(table: Mapping[T, str]) -> Mapping[str, T]:
    return {word: meaning for meaning, words in table.items() for word in words.split()}


_FLAGS_OF_WORD = _by_word(_FLAGS)
_REMARK_OF_WORD = _by_word(_REMARKS)


def explain_foreign_flag(name: str, known: Collection[str]) -> str | None:
    """What another tool's flag is here, as in `here --max_step`; None for a word of no tool.

    Empty for a word of the table where the script has nothing like it.

    The name and the known flags of the script have their dashes in front.
    """
    word = name.lstrip("-").replace("-", "_").lower()
    flags, remark = _FLAGS_OF_WORD.get(word, ()), _REMARK_OF_WORD.get(word, "")
    there = next((f"--{flag}" for flag in flags if f"--{flag}" in known), None)
    if f"--{word}" in known:
        return None
    if there is not None:
        return f"here {there}" + (f": {remark}" if remark else "")
    if word.startswith("no_") and f"--{word[3:]}" in known:
        return f"here --{word[3:]} False"
    return "" if flags else remark or None
