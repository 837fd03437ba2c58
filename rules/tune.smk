# Searches for the settings of the models under `tune:`, with a job per trial. Snakemake counts the budget, runs as many jobs
# concurrently as there are GPUs or cores, and restarts killed jobs, which resume from their checkpoints. The trials share a
# journal. Journal and checkpoints are not outputs, because Snakemake would remove them after a killed job.


rule tune:
    """The best settings of every model under `tune:`, searched with the validation rows."""
    input:
        searched,


rule tune_trial:
    message:
        "Trial {wildcards.trial} of the search for settings of {wildcards.model}"
    input:
        TRAINING,
        train=f"{RESULTS}/sample/train.parquet",
        valid=f"{RESULTS}/sample/valid.parquet",
        calib=f"{RESULTS}/sample/calib.parquet",
    output:
        f"{RESULTS}/progress/tune/{{model}}/{{trial}}.json",
    params:
        type=rules.train_model.params.type,
        settings=fixed_search_settings,
        content=rules.train_model.params.content,
        search=search_of,
        metric=lambda wildcards: settings.tune[wildcards.model].metric or settings.select.metric,
        seed=lambda wildcards: (
            settings.seed if settings.tune[wildcards.model].seed is None else settings.tune[wildcards.model].seed
        ),
        inputs=rules.train_model.params.inputs,
        grid=rules.train_model.params.grid,
        weighted=settings.weights.train,
        model_seed=settings.seed,
        journal=f"{RESULTS}/tune/{{model}}/journal.jsonl",
        checkpoint=f"{RESULTS}/progress/tune/{{model}}/{{trial}}.safetensors",
    log:
        f"{LOGS}/tune_trial/{{model}}/{{trial}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tune_trial/{{model}}/{{trial}}.tsv"
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        gpu=GPU,
    script:
        "../workflow_scripts/tune_trial.py"


rule tune_model:
    message:
        "Collecting the trials of {wildcards.model}"
    input:
        lambda wildcards: expand(
            f"{RESULTS}/progress/tune/{wildcards.model}/{{trial}}.json",
            trial=range(settings.tune[wildcards.model].trials),
        ),
    output:
        best=f"{RESULTS}/tune/{{model}}/best.yaml",
        trials=f"{RESULTS}/tune/{{model}}/trials.csv",
        search=f"{RESULTS}/tune/{{model}}/search.json",
    params:
        type=rules.train_model.params.type,
        settings=fixed_search_settings,
        search=search_of,
        metric=rules.tune_trial.params.metric,
        seed=rules.tune_trial.params.seed,
    log:
        f"{LOGS}/tune_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tune_model/{{model}}.tsv"
    conda:
        "../envs/models.yaml"
    threads: 1
    localrule: True
    script:
        "../workflow_scripts/tune_model.py"
