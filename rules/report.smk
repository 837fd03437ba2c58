from zmill.catalog.files import file_hash

# The report.


rule report:
    """One self-contained page with the accuracy of the photo-z and a summary of each stage."""
    message:
        "Writing {output.report}"
    input:
        leaderboard=f"{RESULTS}/evaluation/leaderboard.csv",
        patterns=f"{RESULTS}/evaluation/patterns.csv",
        best=f"{RESULTS}/evaluation/best.json",
        evaluations=expand(
            f"{RESULTS}/evaluation/{{model}}/{{file}}", model=MODELS, file=["metrics.json", "predictions.parquet"]
        ),
        models=expand(f"{RESULTS}/models/{{model}}/model.json", model=MODELS),
        notes=f"{RESULTS}/import.json",
        sample=f"{RESULTS}/sample/sample.json",
        test=f"{RESULTS}/sample/test.parquet",
        split=f"{RESULTS}/split.json",
        imputation=f"{RESULTS}/imputation.json",
        sky=(
            []
            if survey.tables
            else [
                f"{RESULTS}/sample/weights.json",
                f"{RESULTS}/rejected/survey.json",
                f"{RESULTS}/specz/labels.json",
                f"{RESULTS}/matches.json",
                f"{RESULTS}/matches.parquet",
                f"{RESULTS}/photoz/content.json",
                f"{RESULTS}/champion.json",
                f"{RESULTS}/gates.json",
            ]
        ),
    output:
        report=f"{RESULTS}/report.html",
    params:
        results=subpath(output[0], parent=True),
        name=settings.survey,
        config=dump(settings),
        survey=dump(survey),
        # Existing searches, as a parameter: as inputs they would be repeated when a setting changes.
        searches={
            name: file_hash(path) for name in MODELS if (path := Path(RESULTS, "tune", name, "search.json")).is_file()
        },
        retrieved=file_hash(path) if (path := Path(RESULTS, "retrieve.parquet")).is_file() else None,
    log:
        f"{LOGS}/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report.tsv"
    conda:
        "../envs/models.yaml"
    threads: 1
    script:
        "../workflow_scripts/report.py"
