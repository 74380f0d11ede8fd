"""What is compared, read from the folders of the nets and the sampler; computes no metric."""
