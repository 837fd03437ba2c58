# Publishing: an immutable release of what is finished, and the way back to the one before.

# Says that what is finished was looked at by `release`; release.json is no output, as it stays where a night is not published.
RELEASED = f"{RESULTS}/progress/release.json"
# Settings that change no number: with others of these, the current release is still what a night is held against.
NIGHTLY = {"results_dir", "data_dir", "refresh", "gates", "release", "tune"}


rule gates:
    """Whether this may be published: rows, magnitudes and n(z) beside the current release, and the model's metrics."""
    message:
        "Comparing with the current release"
    input:
        photoz=f"{RESULTS}/photoz/content.json",
        survey=f"{RESULTS}/survey/content.json",
        champion=f"{RESULTS}/champion.json",
    output:
        f"{RESULTS}/gates.json",
    params:
        results=subpath(output[0], parent=True),
        gates=dump(settings.gates),
        bands=survey.bands,
        settings={"config": settings.model_dump(mode="json", exclude=NIGHTLY), "survey": dump(survey)},
    log:
        f"{LOGS}/gates.log",
    benchmark:
        f"{RESULTS}/benchmarks/gates.tsv"
    conda:
        "../envs/models.yaml"
    threads: 1
    script:
        "../workflow_scripts/gates.py"


rule release:
    """Publish photo-z, PDFs, model and report as an immutable release, and switch `current` to it."""
    message:
        "Releasing the photo-z of every row"
    input:
        photoz=f"{RESULTS}/photoz/content.json",
        pdf=[] if settings.predict.pdf == "none" else f"{RESULTS}/pdf/partition_info.csv",
        survey=f"{RESULTS}/survey/content.json",
        champion=f"{RESULTS}/champion.json",
        gates=f"{RESULTS}/gates.json",
        report=f"{RESULTS}/report.html",
        leaderboard=f"{RESULTS}/evaluation/leaderboard.csv",
        best=f"{RESULTS}/evaluation/best.json",
    output:
        RELEASED,
    params:
        results=subpath(output[0], ancestor=2),
        keep=settings.release.keep,
        config=dump(settings),
        survey=dump(survey),
    log:
        f"{LOGS}/release.log",
    benchmark:
        f"{RESULTS}/benchmarks/release.tsv"
    conda:
        "../envs/models.yaml"
    threads: 2
    script:
        "../workflow_scripts/release.py"


rule verify:
    """Read every byte of the current release and hold it against its record."""
    message:
        "Verifying the current release"
    params:
        results=RESULTS,
    log:
        f"{LOGS}/verify.log",
    conda:
        "../envs/data.yaml"
    threads: 2
    localrule: True
    script:
        "../workflow_scripts/verify.py"


rule mend:
    """Read every byte of the results and releases; put back what is damaged, or have the next run make it again."""
    message:
        "Looking for damage"
    params:
        results=RESULTS,
    log:
        f"{LOGS}/mend.log",
    conda:
        "../envs/models.yaml"
    threads: 2
    localrule: True
    script:
        "../workflow_scripts/mend.py"


rule rollback:
    """Switch `current` back to the release before it, and publish nothing until `resume`; nothing is deleted."""
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


rule resume:
    """After a rollback: the next run publishes again."""
    message:
        "Letting runs publish again"
    params:
        results=RESULTS,
        released=RELEASED,
    log:
        f"{LOGS}/resume.log",
    conda:
        "../envs/data.yaml"
    threads: 1
    localrule: True
    script:
        "../workflow_scripts/resume.py"
