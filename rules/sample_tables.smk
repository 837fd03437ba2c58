# Surveys without positions: the sample is made directly from training and test tables.

# The tables that the sample was made from.
TABLES = f"{RESULTS}/progress/sources/tables.json"


rule sample_tables:
    """Tables of labelled rows with clean photometry, one per split."""
    message:
        "Making the sample from training and test tables"
    input:
        train=SOURCES.train,
        test=SOURCES.test,
    output:
        tables=expand(
            f"{RESULTS}/sample/{{split}}.parquet",
            split=["train", "valid", "calib", "test"],
        ),
        notes=f"{RESULTS}/import.json",
        imputation=f"{RESULTS}/imputation.json",
        counts=f"{RESULTS}/split.json",
        report=f"{RESULTS}/sample/sample.json",
    params:
        content=lambda wildcards: content_of(SOURCES.train + SOURCES.test, Path(TABLES)),
        manifest=TABLES,
        survey={**ROW_SETTINGS, "redshift_grid": dump(survey)["redshift_grid"]},
        labels=dump(settings.labels),
        split=dump(settings.split),
        impute=settings.clean.impute,
        seed=settings.seed,
    log:
        f"{LOGS}/sample_tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/sample_tables.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/sample_tables.py"
