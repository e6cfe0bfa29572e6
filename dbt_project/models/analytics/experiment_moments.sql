{{ moments_of(ref('experiment_users')) }}
