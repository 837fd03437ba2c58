# Evaluation of every model on the same labelled rows, and selection of the one that is applied to the survey.


rule evaluate_model:
    message:
        "Evaluating {wildcards.model}"
    input:
        TRAINING,
        model=f"{RESULTS}/models/{{model}}/model.json",
        held_out=f"{RESULTS}/models/{{model}}/{'held_out/' if settings.refit else ''}model.json",
        train=f"{RESULTS}/sample/train.parquet",
        valid=f"{RESULTS}/sample/valid.parquet",
        calib=f"{RESULTS}/sample/calib.parquet",
        test=f"{RESULTS}/sample/test.parquet",
        imputation=f"{RESULTS}/imputation.json",
    output:
        predictions=f"{RESULTS}/evaluation/{{model}}/predictions.parquet",
        metrics=f"{RESULTS}/evaluation/{{model}}/metrics.json",
    params:
        inputs=INPUTS_OF_ROWS,
        impute=settings.clean.impute,
        block_order=settings.split.block_order,
        seed=settings.seed,
        logged=["sigma_nmad", "eta_015", "crps", "cde_loss", "pit_ks"],
    log:
        f"{LOGS}/evaluate_model/{{model}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_model/{{model}}.tsv"
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        gpu=GPU,
    script:
        "../workflow_scripts/evaluate_model.py"


rule select_model:
    """Select the model that is applied to every row; write the leaderboards of all rows and by pattern of missing bands."""
    message:
        "Selecting the model by {params.metric}"
    input:
        TRAINING,
        metrics=expand(f"{RESULTS}/evaluation/{{model}}/metrics.json", model=MODELS),
    output:
        leaderboard=f"{RESULTS}/evaluation/leaderboard.csv",
        patterns=f"{RESULTS}/evaluation/patterns.csv",
        best=f"{RESULTS}/evaluation/best.json",
    params:
        metric=settings.select.metric,
    log:
        f"{LOGS}/select_model.log",
    benchmark:
        f"{RESULTS}/benchmarks/select_model.tsv"
    conda:
        "../envs/models.yaml"
    threads: 1
    localrule: True
    script:
        "../workflow_scripts/select_model.py"
