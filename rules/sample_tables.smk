# Surveys without positions: training and test tables straight to the sample.


rule sample_tables:
    input:
        train=SOURCES.train,
        test=SOURCES.test,
    output:
        tables=expand(
            f"{RESULTS}/sample/{{split}}.parquet",
            split=["train", "valid", "calib", "test"],
        ),
        imputation=f"{RESULTS}/imputation.json",
        counts=f"{RESULTS}/split.json",
        report=f"{RESULTS}/sample/sample.json",
    log:
        f"{LOGS}/sample_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/sample_tables.tsv"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        survey=dump(survey),
        split=dump(settings.split),
        impute=settings.clean.impute,
        seed=settings.seed,
    """Tables of labelled rows with clean photometry, one per split."""
    message:
        "Making the sample from training and test tables"
    script:
        "../workflow_scripts/sample_tables.py"
