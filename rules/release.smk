# Publishing: an immutable release of what is finished, and the way back to the one before.


rule release:
    """Publish photo-z, PDFs, model and report as an immutable release, and switch `current` to it."""
    message:
        "Releasing the photo-z of every row"
    input:
        photoz=f"{RESULTS}/photoz/partition_info.csv",
        pdf=[] if settings.predict.pdf == "none" else f"{RESULTS}/pdf/partition_info.csv",
        survey=f"{RESULTS}/survey/partition_info.csv",
        report=f"{RESULTS}/report.html",
        leaderboard=f"{RESULTS}/evaluation/leaderboard.csv",
        best=f"{RESULTS}/evaluation/best.json",
    output:
        release=f"{RESULTS}/release.json",
    params:
        results=subpath(output.release, parent=True),
        keep=settings.release.keep,
        config=dump(settings),
        survey=dump(survey),
    log:
        f"{LOGS}/release.log",
    benchmark:
        f"{RESULTS}/benchmarks/release.tsv"
    conda:
        "../envs/data.yaml"
    threads: 2
    script:
        "../workflow_scripts/release.py"


rule rollback:
    """Switch `current` back to the release before it (by name only; nothing is deleted)."""
    message:
        "Going back to the release before"
    params:
        results=RESULTS,
    log:
        f"{LOGS}/rollback.log",
    conda:
        "../envs/data.yaml"
    threads: 2
    localrule: True
    script:
        "../workflow_scripts/rollback.py"
