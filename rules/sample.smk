# Which labelled rows train, choose, calibrate and test the models, and their tables: learned from and kept until it is due
# to learn again. What is `ancient` comes with the nights and is taken up then.


rule split:
    """Which labelled row trains, validates, calibrates or tests, and which are not used and why."""
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


# What was decided last, and until when it holds.
LEARNED = f"{RESULTS}/progress/training.json"


checkpoint due:
    """Whether models are learned again: when labels or settings changed, or time has passed."""
    message:
        "Comparing the labels with those that models have learned from"
    input:
        split=f"{RESULTS}/split.parquet",
    output:
        f"{RESULTS}/training.json",
    params:
        sample=f"{RESULTS}/sample",
        state=LEARNED,
        settings=SAMPLE_SETTINGS,
        refresh=settings.refresh.model_dump(mode="json", include={"labels_changed", "every"}),
        period=lambda wildcards: period(Path(LEARNED)),
    log:
        f"{LOGS}/due.log",
    benchmark:
        f"{RESULTS}/benchmarks/due.tsv"
    conda:
        "../envs/data.yaml"
    threads: 1
    script:
        "../workflow_scripts/due.py"


rule colors:
    """Mean colors of the training rows, for imputation: learned once, they stay until the sample's settings change."""
    message:
        "Learning mean colors from the training rows"
    input:
        split=ancient(f"{RESULTS}/split.parquet"),
        survey=ancient(f"{RESULTS}/survey/partition_info.csv"),
    output:
        f"{RESULTS}/imputation.json",
    params:
        bands=survey.bands,
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
    """Tables of labelled rows with clean photometry, one per split, weighed to stand for the survey."""
    message:
        "Writing the training, validation, calibration and test tables"
    input:
        due=f"{RESULTS}/training.json",
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
