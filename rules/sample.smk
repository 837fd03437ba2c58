# The split of the labelled rows and the tables that models are trained, selected, calibrated and tested on. The tables stay
# until models are retrained: inputs marked `ancient` may change before then without a new sample.


rule split:
    """Assign each labelled row to a split, or exclude it with a reason."""
    message:
        "Splitting the labelled rows"
    input:
        matches=f"{RESULTS}/matches.parquet",
        survey=f"{RESULTS}/survey/content.json",
    output:
        split=f"{RESULTS}/split.parquet",
        counts=f"{RESULTS}/split.json",
    params:
        survey={**ROW_SETTINGS, "redshift_grid": dump(survey)["redshift_grid"]},
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


# The result of the last retrain check, with its end date.
RETRAIN_STATE = f"{RESULTS}/progress/training.json"


checkpoint retrain_check:
    """Whether models are retrained: when labels or settings changed, or time has passed."""
    message:
        "Comparing the labels with those that the models were trained on"
    input:
        split=f"{RESULTS}/split.parquet",
    output:
        f"{RESULTS}/training.json",
    params:
        sample=f"{RESULTS}/sample",
        state=RETRAIN_STATE,
        settings=SAMPLE_SETTINGS,
        refresh=settings.refresh.model_dump(mode="json", include={"labels_changed", "every"}),
        period=lambda wildcards: period(Path(RETRAIN_STATE)),
    log:
        f"{LOGS}/retrain_check.log",
    benchmark:
        f"{RESULTS}/benchmarks/retrain_check.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/retrain_check.py"


rule colors:
    """Mean colors of the training rows, for imputation: fitted once and kept until the settings of the sample change."""
    message:
        "Fitting mean colors to the training rows"
    input:
        split=ancient(f"{RESULTS}/split.parquet"),
        survey=ancient(f"{RESULTS}/survey/partition_info.csv"),
    output:
        f"{RESULTS}/imputation.json",
    params:
        inputs=INPUTS_OF_ROWS,
        sample=SAMPLE_SETTINGS,
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
    """Write a table of labelled rows with clean photometry per split, weighted to represent the survey."""
    message:
        "Writing the training, validation, calibration and test tables"
    input:
        retrain_check=f"{RESULTS}/training.json",
        split=ancient(f"{RESULTS}/split.parquet"),
        counts=ancient(f"{RESULTS}/split.json"),
        clean=ancient(f"{RESULTS}/clean/partition_info.csv"),
        imputation=f"{RESULTS}/imputation.json",
    output:
        tables=expand(
            f"{RESULTS}/sample/{{split}}.parquet",
            split=["train", "valid", "calib", "test"],
        ),
        weights=f"{RESULTS}/sample/weights.json",
        report=f"{RESULTS}/sample/sample.json",
    params:
        inputs=INPUTS_OF_SAMPLE,
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
