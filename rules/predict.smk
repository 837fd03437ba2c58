# Prediction of every row of the survey by the deployed model, shard by shard.


checkpoint champion:
    """The model that is applied to the survey: the deployed one, or the best of the latest training if it is better."""
    message:
        "Comparing the selected model with the deployed one"
    input:
        TRAINING,
        best=f"{RESULTS}/evaluation/best.json",
        models=expand(f"{RESULTS}/models/{{model}}/model.json", model=MODELS),
        test=f"{RESULTS}/sample/test.parquet",
    output:
        f"{RESULTS}/champion.json",
    params:
        results=subpath(output[0], parent=True),
        metric=settings.select.metric,
        margin=settings.refresh.margin,
        requested={
            "models": {name: dump(model) for name, model in settings.models.items()},
            "sample": SAMPLE_SETTINGS,
            "grid": dump(survey.redshift_grid),
            "odds_width": survey.odds_width,
            "filters": dict(survey.filters),
            **settings.model_dump(mode="json", include={"refit", "select", "weights"}),
        },
        block_order=settings.split.block_order,
    log:
        f"{LOGS}/champion.log",
    benchmark:
        f"{RESULTS}/benchmarks/champion.tsv"
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        gpu=GPU,
    script:
        "../workflow_scripts/champion.py"


rule predict:
    """A photo-z and a PDF for every row of the survey."""
    input:
        f"{RESULTS}/photoz/partition_info.csv",


rule predict_shard:
    message:
        "Predicting the redshifts of shard {wildcards.shard}"
    input:
        clean=f"{RESULTS}/progress/clean/{{shard}}.json",
        shard=ancient(f"{RESULTS}/survey/shards/{{shard}}.csv"),
        champion=ancient(f"{RESULTS}/champion.json"),
    output:
        f"{RESULTS}/progress/predict/{{shard}}.json",
    params:
        model=model_of,
        results=subpath(output[0], ancestor=3),
        inputs=INPUTS_OF_ROWS,
        predict=dump(settings.predict),
        schema_version=assign.SCHEMA_VERSION,
    log:
        f"{LOGS}/predict_shard/{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict_shard/{{shard}}.tsv"
    conda:
        "../envs/models.yaml"
    threads: threads_of_shard
    resources:
        gpu=GPU,
    script:
        "../workflow_scripts/predict_shard.py"


rule photoz_catalog:
    """The catalogues of photo-z and PDFs, after a check that they have every row of the survey."""
    message:
        "Checking the predicted rows and finishing the catalogues"
    input:
        predicted,
        survey=f"{RESULTS}/survey/partition_info.csv",
        clean=f"{RESULTS}/clean/partition_info.csv",
        champion=ancient(f"{RESULTS}/champion.json"),
    output:
        pdf=[] if settings.predict.pdf == "none" else f"{RESULTS}/pdf/partition_info.csv",
        photoz=f"{RESULTS}/photoz/partition_info.csv",
        content=f"{RESULTS}/photoz/content.json",
    params:
        results=subpath(output.photoz, ancestor=2),
        survey=settings.survey,
        pdf=settings.predict.pdf,
    log:
        f"{LOGS}/photoz_catalog.log",
    benchmark:
        f"{RESULTS}/benchmarks/photoz_catalog.tsv"
    conda:
        "../envs/models.yaml"
    threads: 1
    script:
        "../workflow_scripts/photoz_catalog.py"
