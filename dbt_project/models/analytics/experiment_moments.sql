{{ moments_of(ref('experiment_users'), described_columns('experiment_users')) }}
