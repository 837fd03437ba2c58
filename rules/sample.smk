# Which labelled rows train, choose, calibrate and test the models, and their tables.


rule split:
    """Which labelled row trains, validates, calibrates or tests, and which are not used and why."""
    message:
        "Splitting the labelled rows"
    input:
        matches=f"{RESULTS}/matches.parquet",
        survey=f"{RESULTS}/survey/partition_info.csv",
    output:
        split=f"{RESULTS}/split.parquet",
        counts=f"{RESULTS}/split.json",
    params:
        survey=ROW_SETTINGS,
        split=dump(settings.split),
        ambiguous=settings.crossmatch.ambiguous,
        seed=settings.seed,
    log:
        f"{LOGS}/split.log",
    benchmark:
        f"{RESULTS}/benchmarks/split.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/split.py"


rule colors:
    """Mean colors of the training rows, for imputation."""
    message:
        "Learning mean colors from the training rows"
    input:
        split=f"{RESULTS}/split.parquet",
        survey=f"{RESULTS}/survey/partition_info.csv",
    output:
        f"{RESULTS}/imputation.json",
    params:
        bands=survey.bands,
    log:
        f"{LOGS}/colors.log",
    benchmark:
        f"{RESULTS}/benchmarks/colors.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/colors.py"


rule sample:
    """Tables of labelled rows with clean photometry, one per split, weighed to stand for the survey."""
    message:
        "Writing the training, validation, calibration and test tables"
    input:
        split=f"{RESULTS}/split.parquet",
        counts=f"{RESULTS}/split.json",
        clean=f"{RESULTS}/clean/partition_info.csv",
    output:
        tables=expand(
            f"{RESULTS}/sample/{{split}}.parquet",
            split=["train", "valid", "calib", "test"],
        ),
        weights=f"{RESULTS}/sample/weights.json",
        report=f"{RESULTS}/sample/sample.json",
    params:
        bands=survey.bands,
        reference=survey.reference,
        weights=settings.weights.model_dump(exclude={"train"}),
        seed=settings.seed,
    log:
        f"{LOGS}/sample.log",
    benchmark:
        f"{RESULTS}/benchmarks/sample.tsv"
    conda:
        "../envs/data.yaml"
    threads: 2
    script:
        "../workflow_scripts/sample.py"
