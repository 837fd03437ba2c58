# Publication of immutable releases, and rollback to the previous one.

# Marks the step as done; release.json is no output, because it stays the same if a night is not published.
RELEASED = f"{RESULTS}/progress/release.json"
# Settings that change no number: if they change, a night is still compared with the current release.
NIGHTLY = {"results_dir", "data_dir", "refresh", "gates", "release", "tune", "retrieve"}


rule gates:
    """Whether the results may be published, from a comparison of rows, measurements and n(z) with the current release, and from the metrics."""
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
        inputs=INPUTS_OF_ROWS,
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
    """Read every byte of the current release and compare it with its record."""
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
    """Read every byte of the results and releases; restore damaged files, or let the next run compute them again."""
    message:
        "Checking for damaged files"
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
    """Switch `current` to the previous release, and publish nothing until `resume`; nothing is deleted."""
    message:
        "Switching to the previous release"
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
    """Let the next run publish again after a rollback."""
    message:
        "Enabling publication"
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
