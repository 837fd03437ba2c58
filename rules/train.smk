# One job per model, run concurrently, each on its own GPU if there are any. A killed job resumes from
# its checkpoint, which is not an output, because Snakemake would remove it.


# Small networks, which train on one thread (docs/performance.md): two of them run concurrently.
ONE_THREAD = {"cnn", "fcnn", "gat", "trainz"}


# The files that the settings of a model name, such as SEDs.
FILES_READ = f"{RESULTS}/progress/sources/models/{{model}}.json"


rule train_model:
    message:
        "Training {wildcards.model}"
    input:
        TRAINING,
        train=f"{RESULTS}/sample/train.parquet",
        valid=f"{RESULTS}/sample/valid.parquet",
        calib=f"{RESULTS}/sample/calib.parquet",
        imputation=f"{RESULTS}/imputation.json",
    output:
        held_out=f"{RESULTS}/models/{{model}}/held_out/model.json" if settings.refit else [],
        model=f"{RESULTS}/models/{{model}}/model.json",
    params:
        type=lambda wildcards: settings.models[wildcards.model].type or wildcards.model,
        settings=lambda wildcards: settings.models[wildcards.model].model_extra or {},
        files=lambda wildcards: settings.models[wildcards.model].files,
        content=lambda wildcards: content_of(
            settings.models[wildcards.model].files, Path(FILES_READ.format(model=wildcards.model))
        ),
        files_read=FILES_READ,
        inputs=INPUTS,
        extra=list(survey.columns.extra),
        grid=dict(z_min=survey.redshift_grid.min, z_max=survey.redshift_grid.max, size=survey.redshift_grid.points),
        odds_width=survey.odds_width,
        weighted=settings.weights.train,
        refit=settings.refit,
        impute=settings.clean.impute,
        seed=settings.seed,
        checkpoint=f"{RESULTS}/progress/train/{{model}}.safetensors",
    log:
        f"{LOGS}/train_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_model/{{model}}.tsv"
    conda:
        "../envs/models.yaml"
    threads: lambda wildcards: 1 if (settings.models[wildcards.model].type or wildcards.model) in ONE_THREAD else 2
    resources:
        gpu=GPU,
    script:
        "../workflow_scripts/train_model.py"
